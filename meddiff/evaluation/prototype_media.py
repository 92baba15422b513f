"""Pictures of prototypes: for the report's gallery, and as a sheet for loggers. Pictures of patients stay in the run folder.

Source: own; rows as in the figures of Weng et al. 2026: the image, the picture with more of the prototype, the patch.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from meddiff.attribution.prototype_edits import in_pixels, patch_of
from meddiff.attribution.strips import panels
from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import file_in
from meddiff.evaluation.measurement import Result, Row
from meddiff.evaluation.prototype_inputs import inputs_of
from meddiff.evaluation.prototypes import Prototypes
from meddiff.models.patronus import Patronus
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.members import png_bytes

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
#: Sides of a picture, which is enlarged to it, and of a patch, in pixels.
SIDE, PATCH = 128, 72
FRAME = (230, 60, 40)
#: What of a row of the table stands with its pictures.
KEPT = (
    "name",
    "kind",
    "concept",
    "auroc",
    "p",
    "before",
    "after",
    "odd",
    "t_half",
    "t_half_low",
    "t_half_high",
    "alike",
)


def framed(picture: Pixels, box: Box, side: int = SIDE) -> Pixels:
    """A picture enlarged to ``side`` with a frame around a box (y0, x0, y1, x1) in its own pixels: uint8 (side, side, 3)."""
    height, width = picture.shape[:2]
    drawn = Image.fromarray(picture).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    y0, x0, y1, x1 = (place * side / length for place, length in zip(box, (height, width, height, width), strict=True))
    ImageDraw.Draw(drawn).rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=FRAME, width=2)
    return np.asarray(drawn)


def patch(picture: Pixels, box: Box, side: int = PATCH) -> Pixels:
    """What lies in a box, enlarged: uint8 (side, side, 3)."""
    y0, x0, y1, x1 = box
    crop = Image.fromarray(picture[y0:y1, x0:x1]).convert("RGB")
    return np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC))


class Shown:
    """The pictures of one prototype.

    Attributes:
        plain, drawn, crop: the image, the picture with more of the prototype, its patch.
        natural: real images with most of it, framed, their patches, and the activations.
    """

    def __init__(self, model: Patronus, split: LatentShardsDataset, measured: Prototypes, place: int) -> None:
        entry = measured.raised.entries[place]
        self.number = entry["prototype"]
        self.picture = measured.raised.pictures[self.number]
        y0, x0, y1, x1 = entry["box"]
        self.box: Box = (y0, x0, y1, x1)
        inputs = inputs_of(split, measured.options.seed)
        x = inputs(entry["image"])
        self.key = split.keys[entry["image"]]
        self.plain = model.to_images(x[None].to(model.device))[0]
        self.drawn, self.crop = framed(self.picture, self.box), patch(self.picture, self.box)
        self.natural: list[tuple[str, Pixels, Pixels, float]] = []
        for index in measured.natural.get(self.number, ()):
            one = inputs(index)
            image = model.to_images(one[None].to(model.device))[0]
            box = in_pixels(patch_of(model, self.number, one), model.downsample)
            value = float(model.activations(one[None].to(model.device))[0, self.number].detach())
            self.natural.append((split.keys[index], framed(image, box), patch(image, box), value))


def shown_prototypes(model: Patronus, split: LatentShardsDataset, measured: Prototypes) -> list[Shown]:
    """Those that were raised, in the order of their numbers."""
    return [Shown(model, split, measured, place) for place in range(len(measured.raised.entries))]


def write_pictures(folder: Path, images: int, shown: Sequence[Shown], result: Result) -> int:
    """``IMAGES.json`` and the pictures of every prototype that was raised; returns how many there are.

    Args:
        folder: ``RUN/media/prototypes``.
        images: trained on.
        result: of the same run.
    """
    rows: dict[int, Row] = {int(row["prototype"] or 0): row for row in result.tables["prototypes"].rows}
    entries: list[dict[str, object]] = []
    for one in shown:
        stem = f"{images:09d}-{one.number:04d}"
        entry: dict[str, object] = {"prototype": one.number, "key": one.key}
        entry |= {name: rows[one.number].get(name) for name in KEPT}
        for name, pixels in (("image", _enlarged(one.plain)), ("drawn", one.drawn), ("patch", one.crop)):
            entry[name] = f"{stem}-{name}.png"
            _write(folder, f"{stem}-{name}.png", pixels)
        natural: list[dict[str, object]] = []
        for place, (key, image, crop, value) in enumerate(one.natural):
            found = {
                "key": key,
                "value": value,
                "image": f"{stem}-real{place}.png",
                "patch": f"{stem}-patch{place}.png",
            }
            _write(folder, str(found["image"]), image)
            _write(folder, str(found["patch"]), crop)
            natural.append(found)
        entries.append({**entry, "natural": natural})
    write_json(folder / f"{images:09d}.json", entries)
    return len(entries)


def sheet_of(shown: Sequence[Shown], result: Result) -> Image.Image | None:
    """A row a prototype: the image, with more of the prototype, the patch, real images with most of it; None of none."""
    if not shown:
        return None
    rows = {int(row["prototype"] or 0): row for row in result.tables["prototypes"].rows}
    lines, titles = [], []
    for one in shown:
        lines.append([_enlarged(one.plain), one.drawn, one.crop, *(image for _, image, _, _ in one.natural)])
        row = rows[one.number]
        titles.append(f"{one.number} {row.get('name') or ''} {row['before']:.2f} to {row['after']:.2f}")
    width = max(map(len, lines))
    columns = ["image", "with more of it", "patch", *["most of it"] * (width - 3)]
    return panels(lines, titles, columns)


def _enlarged(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _write(folder: Path, name: str, pixels: Pixels) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_open(file_in(folder, name)) as stream:
        stream.write(png_bytes(Image.fromarray(pixels)))
