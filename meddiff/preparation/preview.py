"""One picture of a cohort for a person to look at: samples as they are stored, with boxes, masks and texts. Source: own."""

from collections.abc import Callable, Iterable, Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from meddiff.common.draws import generator
from meddiff.common.files import atomic_open
from meddiff.preparation.images import UnreadableImage
from meddiff.preparation.records import Record
from meddiff.shards.sample import CohortSample

MOST, COLUMNS, SIDE, TEXT, LINES, GAP = 24, 4, 256, 11, 6, 6
#: Yellow, cyan, magenta, green, orange, blue: one a phrase or label; of more, the others are made (:func:`colours`).
COLOURS = ((255, 200, 0), (0, 220, 255), (255, 80, 220), (90, 230, 90), (255, 130, 40), (110, 140, 255))


def choose(records: Sequence[Record], most: int = MOST) -> list[Record]:
    """Up to ``most`` records by addressed draws, those with boxes first and all splits in turn."""
    drawn = sorted(records, key=lambda record: (not record.boxes, generator("preview", record.key).random()))
    queues: dict[str, list[Record]] = {}
    for record in drawn:
        queues.setdefault(record.split, []).append(record)
    turns = [queue[place] for place in range(most) for _, queue in sorted(queues.items()) if place < len(queue)]
    return sorted(turns[:most], key=lambda record: (record.split, record.key))


def colours(number: int) -> list[tuple[int, int, int]]:
    """So many colours, all different: those above, then hues a golden angle apart, lighter and darker in turn."""
    made = []
    for place in range(number - len(COLOURS)):
        parts = hsv_to_rgb((0.07 + place * 0.618034) % 1, 0.9 - place % 3 * 0.25, 1.0 - place % 2 * 0.3)
        red, green, blue = (round(255 * part) for part in parts)
        made.append((red, green, blue))
    return [*COLOURS[:number], *made]


def tile(sample: CohortSample) -> Image.Image:
    """A sample, its boxes and masks in the colours of its phrases, and below it split, text, phrases and masks.

    Phrases fill up :data:`LINES`; every mask is named, so that the tile of an image with many is taller.
    """
    picture = Image.fromarray(sample.image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    scale = SIDE / sample.image.shape[0]
    groups = [(phrase.text, phrase.boxes) for phrase in sample.phrases if phrase.boxes]
    if not groups:
        labels = dict.fromkeys(box.label for box in sample.boxes)
        groups = [(label, tuple(box for box in sample.boxes if box.label == label)) for label in labels]
    names = dict.fromkeys([*(text for text, _ in groups), *sample.masks])
    colour = dict(zip(names, colours(len(names)), strict=True))
    for name, mask in sample.masks.items():
        shade = Image.fromarray(np.where(mask, 90, 0).astype(np.uint8)).resize((SIDE, SIDE))
        picture.paste(Image.new("RGB", (SIDE, SIDE), colour[name]), mask=shade)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT)
    for text, boxes in groups:
        for box in boxes:
            corners = (box.x * scale, box.y * scale, (box.x + box.w) * scale - 1, (box.y + box.h) * scale - 1)
            draw.rectangle((*corners[:2], *map(max, corners[2:], corners[:2])), outline=colour[text], width=2)
    lines: list[tuple[str, tuple[int, ...]]] = [(f"{sample.split}  {sample.key}"[:44], (0, 0, 0))]
    lines += [(line, (60, 60, 60)) for line in wrap(sample.impression, 44)[:2]]
    for name in names:
        ink = tuple(part * 2 // 3 for part in colour[name])
        lines += [(line, ink) for line in wrap(name, 44)[:2] if len(lines) < LINES or name in sample.masks]
    page = Image.new("RGB", (SIDE, SIDE + max(LINES, len(lines)) * (TEXT + 2) + GAP), "white")
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    for place, (line, ink) in enumerate(lines):
        draw.text((2, SIDE + 2 + place * (TEXT + 2)), line, fill=ink, font=font)
    return page


def write_preview(path: Path, records: Iterable[Record], make: Callable[[Record], CohortSample]) -> int:
    """Draw the sheet of chosen records; unreadable ones are passed over. Returns the number of tiles (0: no file)."""
    tiles = []
    for record in records:
        try:
            tiles.append(tile(make(record)))
        except UnreadableImage:
            continue
    if tiles:
        width, height = tiles[0].width + GAP, max(one.height for one in tiles) + GAP
        columns = min(COLUMNS, len(tiles))
        sheet = Image.new("RGB", (columns * width + GAP, -(-len(tiles) // columns) * height + GAP), "white")
        for place, one in enumerate(tiles):
            sheet.paste(one, (GAP + place % columns * width, GAP + place // columns * height))
        with atomic_open(path) as stream:
            sheet.save(stream, "PNG")
    return len(tiles)
