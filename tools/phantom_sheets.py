"""Contact sheets of phantoms for ``docs/phantoms.md``: ``python tools/phantom_sheets.py [FOLDER]``.

Only the own grammar, outlines and places are used, so the sheets hold nothing derived from data of others.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from meddiff.common.findings import FINDINGS
from meddiff.phantoms.cohort import PhantomCohort
from meddiff.phantoms.options import CONFOUNDERS, PhantomOptions
from meddiff.phantoms.render import Rendering, render
from meddiff.phantoms.sampling import sample_scene

SIZE, COLUMNS, MARGIN = 128, 8, 96


def tile(picture: Rendering, boxes: bool = False) -> Image.Image:
    """One phantom, with the boxes of its findings if asked for."""
    image = Image.fromarray(picture.image).convert("RGB")
    draw = ImageDraw.Draw(image)
    for box in picture.boxes if boxes else ():
        draw.rectangle((box.x - 1, box.y - 1, box.x + box.w, box.y + box.h), outline=(255, 190, 0))
    return image


def mask_tile(mask: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")


def sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Rows of tiles with a name at the left of each."""
    width = MARGIN + max(len(tiles) for _, tiles in rows) * (SIZE + 2)
    page = Image.new("RGB", (width, len(rows) * (SIZE + 2)), "white")
    draw = ImageDraw.Draw(page)
    for r, (name, tiles) in enumerate(rows):
        draw.text((4, r * (SIZE + 2) + SIZE // 2 - 6), name, fill="black")
        for c, image in enumerate(tiles):
            page.paste(image, (MARGIN + c * (SIZE + 2), r * (SIZE + 2)))
    return page


def findings_sheet() -> Image.Image:
    """One row per class, boxes drawn on every second one so that both picture and place can be seen."""
    rows = []
    for label in FINDINGS:
        pairs = [render(sample_scene(("sheet", label, k), (label,)), SIZE) for k in range(COLUMNS // 2)]
        rows.append((label, [tile(one, boxes) for one in pairs for boxes in (False, True)]))
    return sheet(rows)


def views_sheet() -> Image.Image:
    """Healthy chests by view."""
    rows = []
    for view in ("PA", "AP"):
        scenes = [scene for k in range(120) if (scene := sample_scene(("sheet", "view", k), ())).anatomy.view == view]
        pictures = [tile(render(scene, SIZE)) for scene in scenes[: 2 * COLUMNS]]
        rows += [(f"No Finding, {view}", pictures[:COLUMNS]), (f"No Finding, {view}", pictures[COLUMNS:])]
    return sheet(rows)


def confounders_sheet() -> Image.Image:
    """One row per confounder: picture and mask."""
    rows = []
    for name in CONFOUNDERS:
        tiles = []
        for k in range(COLUMNS // 2):
            labels = ("Cardiomegaly",) if k % 2 else ()
            one = render(sample_scene(("sheet", "confounder", k), labels, confounders=(name,)), SIZE)
            tiles += [tile(one), mask_tile(one.masks[name])]
        rows.append((name, tiles))
    return sheet(rows)


def pairs_sheet() -> Image.Image:
    """Mirrored pairs, and one phantom with and without its findings."""
    cohort = PhantomCohort(PhantomOptions(n=80, seed=3, normal=0.0, mirrored_pairs=True, outlines="own", boxes="own"))
    chosen = [i for i in range(0, 80, 2) if set(cohort.plan.labels[i]) - {"Cardiomegaly"}][: COLUMNS // 2]
    pairs = [tile(render(cohort.scene(i + k), SIZE), True) for i in chosen for k in (0, 1)]
    scenes = [cohort.scene(i) for i in chosen]
    removed = [tile(render(one, SIZE)) for scene in scenes for one in (scene, scene.without())]
    return sheet([("mirrored pairs", pairs), ("with, without", removed)])


def source_sheet() -> Image.Image:
    """The source domain at three shifts, and the chest domain with a shift."""
    rows = []
    for domain, shift in (("source", 1.0), ("source", 0.5), ("source", 0.0), ("chest", 0.5), ("chest", 0.0)):
        cohort = PhantomCohort(
            PhantomOptions(n=COLUMNS, seed=5, normal=0.0, domain=domain, shift=shift, outlines="own", boxes="own")
        )
        rows.append((f"{domain}, {shift}", [tile(render(cohort.scene(k), SIZE)) for k in range(COLUMNS)]))
    return sheet(rows)


def main(folder: str = "docs/img") -> None:
    """Write all sheets as PNG."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for make in (findings_sheet, views_sheet, confounders_sheet, pairs_sheet, source_sheet):
        path = target / f"phantoms_{make.__name__.removesuffix('_sheet')}.png"
        make().save(path, optimize=True)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
