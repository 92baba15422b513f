"""Panels of pictures with titles, and the same as an animation: figures of visual analysis, made of pixels. Source: own.

Rows and columns as in the figures of Park, Ju and Lee (2024): prompts or tools downwards, timesteps to the right.
"""

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: Pixels between pictures, and of a title.
GAP, LINE = 4, 16
#: Characters of a row's title that fit beside pictures.
TITLE = 22
#: Milliseconds that an animation shows each of its pictures, and its last one.
FRAME, LAST = 350, 1800
Picture = NDArray[np.uint8]


def panels(
    rows: Sequence[Sequence[Picture | None]], titles: Sequence[str], columns: Sequence[str], side: int = 96
) -> Image.Image:
    """A grid of pictures, each ``side`` pixels high and wide.

    Args:
        rows: uint8 (H, W) or (H, W, 3) each; None leaves a place empty.
        titles: of rows, wrapped and cut to what fits.
        columns: above them.
    """
    width, margin = max(map(len, rows)), 8 * TITLE if any(titles) else 0
    sheet = Image.new("RGB", (margin + width * (side + GAP), LINE + len(rows) * (side + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, title in enumerate(columns[:width]):
        draw.text((margin + place * (side + GAP) + side // 2, 1), _plain(title), "black", font, anchor="ma")
    for y, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top = LINE + y * (side + GAP)
        lines = textwrap.wrap(_plain(title), TITLE, max_lines=max(1, side // LINE - 1), placeholder=" ...")
        draw.multiline_text((2, top + side // 2), "\n".join(lines), "black", font, anchor="lm")
        for x, picture in enumerate(row):
            if picture is not None:
                sheet.paste(_sized(picture, side), (margin + x * (side + GAP), top))
    return sheet


def animation(
    frames: Sequence[Sequence[Picture | None]], titles: Sequence[str], columns: Sequence[str], side: int = 128
) -> bytes:
    """A GIF: each frame is one row of pictures, such as the emerging image and its maps at one timestep.

    Args:
        frames: a row each.
        titles: of frames, written below them.
        columns: above the pictures.
    """
    drawn = []
    for row, title in zip(frames, titles, strict=True):
        one = panels([row], [""], columns, side)
        sheet = Image.new("RGB", (one.width, one.height + LINE), "white")
        sheet.paste(one, (0, 0))
        ImageDraw.Draw(sheet).text((2, one.height + 1), _plain(title), "black", ImageFont.load_default(12))
        drawn.append(sheet.quantize(128))
    content = io.BytesIO()
    times = [*[FRAME] * (len(drawn) - 1), LAST]
    drawn[0].save(content, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0)
    return content.getvalue()


def _sized(picture: Picture, side: int) -> Image.Image:
    return Image.fromarray(picture).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def _plain(text: str) -> str:
    """Without line breaks and controls, which would be drawn as boxes or on other lines."""
    return "".join(one if one.isprintable() else " " for one in text)
