"""The pictures of docs/real_run.md out of a run folder: ``python tools/real_run_figures.py RUN``."""

import json
import sys
from pathlib import Path
from typing import TypedDict

from PIL import Image, ImageDraw, ImageFont

HERE, SIDE, LINE = Path(__file__).parents[1] / "docs" / "img", 192, 14


#: What is used of an entry of a gallery: names of files, size (height, width), boxes of x, y, w, h in its pixels.
Shown = TypedDict(
    "Shown",
    {
        "image": str,
        "real": str,
        "prompt": str,
        "map": str,
        "size": tuple[int, int],
        "boxes": list[tuple[float, float, float, float]],
        "class": str,
        "cnr": float,
    },
)


def newest(folder: Path) -> list[Shown]:
    """Entries of the last evaluation."""
    entries: list[Shown] = json.loads(max(folder.glob("[0-9]*.json")).read_text())
    return entries


def sheet(rows: list[list[tuple[Image.Image, str]]], name: str) -> None:
    """Rows of pictures with a line of text below each."""
    page = Image.new("RGB", (len(rows[0]) * (SIDE + 4), len(rows) * (SIDE + LINE + 4)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(LINE - 3)
    for y, row in enumerate(rows):
        for x, (picture, text) in enumerate(row):
            place = (x * (SIDE + 4), y * (SIDE + LINE + 4))
            page.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), place)
            draw.text((place[0] + 2, place[1] + SIDE), text[:34], fill="black", font=font)
    page.save(HERE / name, optimize=True)


def samples(run: Path) -> None:
    """Drawn images above, the real images with the same labels below."""
    folder = run / "media" / "samples"
    entries = newest(folder)
    drawn: list[tuple[Image.Image, str]] = [(Image.open(folder / one["image"]), one["prompt"]) for one in entries]
    real: list[tuple[Image.Image, str]] = [(Image.open(folder / one["real"]), "real") for one in entries]
    sheet([drawn, real], "real_run_samples.png")


def overlays(run: Path) -> None:
    """Eight images with the map of their word after training, and the boxes."""
    folder = run / "media" / "attention"
    tiles = []
    for entry in newest(folder)[:8]:
        picture = Image.open(folder / entry["map"]).convert("RGB").resize((entry["size"][1], entry["size"][0]))
        for x, y, w, h in entry["boxes"]:
            ImageDraw.Draw(picture).rectangle((x, y, x + w, y + h), outline=(0, 220, 255), width=2)
        tiles.append((picture, f"{entry['class']}, CNR {entry['cnr']:.2f}"))
    sheet([tiles[:4], tiles[4:]], "real_run_maps.png")


if __name__ == "__main__":
    samples(Path(sys.argv[1]))
    overlays(Path(sys.argv[1]))
