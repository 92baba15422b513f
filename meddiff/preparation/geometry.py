"""From a stored image to the square crop, and boxes and masks along with it. Source: own.

The central square of the short side is resized to the resolution in one step: Pillow's antialiased filter takes the
square as a rectangle of fractions of pixels, so the scale is the same along both sides and a point moves exactly,
``x' = (x - x0) * resolution / side``. This is "short side to the resolution, then centre crop" without its roundings: at
the edges of the square the filter sees the pixels beyond it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.shards.sample import Box, Phrase

#: The paper's filter (torchvision's default), with antialiasing stated: spec/tradeoff.md, 1.2.
FILTER = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Crop:
    """The central square of an image of ``width`` x ``height`` pixels, resized to ``resolution``."""

    width: int
    height: int
    resolution: int

    @property
    def side(self) -> int:
        """Of the square, in native pixels."""
        return min(self.width, self.height)

    @property
    def scale(self) -> float:
        """Stored pixels per native pixel."""
        return self.resolution / self.side

    @property
    def rectangle(self) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge of the square in native pixels; halves where the sides differ by an odd number."""
        left, upper = (self.width - self.side) / 2, (self.height - self.side) / 2
        return (left, upper, left + self.side, upper + self.side)


def resize_rule(resolution: int) -> str:
    """The rule in words, for the manifest."""
    return (
        f"short side to {resolution} px, centre crop: the central square resized in one step "
        "(Pillow BILINEAR, antialiased, reducing_gap=None, fractional box)"
    )


def resize_image(image: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3) -> (resolution, resolution) or (resolution, resolution, 3)."""
    crop = Crop(image.shape[1], image.shape[0], resolution)
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((resolution, resolution), FILTER, box=crop.rectangle, reducing_gap=None))


def resize_mask(mask: NDArray[np.bool_], resolution: int) -> NDArray[np.bool_]:
    """bool (H, W) -> (resolution, resolution): pixels of which the mask covers half of the area or more.

    A part (8-connected) too small to cover half of any pixel keeps the pixel that it covers most, so that nothing small
    gets lost beside something large; what lies outside the crop is gone.
    """
    from scipy.ndimage import find_objects, label

    crop = Crop(mask.shape[1], mask.shape[0], resolution)
    left, upper, right, lower = crop.rectangle
    columns, rows = (np.linspace(first, last, resolution + 1) for first, last in ((left, right), (upper, lower)))
    stored = _covered(mask, rows, columns) >= 0.5 - 1e-6
    parts, _ = label(mask, np.ones((3, 3)))
    for number, (down, across) in enumerate(find_objects(parts), 1):
        # Its own corner of the grid: edges of the pixels that the part can touch.
        top, bottom = _touched(rows, down)
        first, last = _touched(columns, across)
        if top >= bottom or first >= last:
            continue  # outside the crop
        part = parts[down, across] == number
        covered = _covered(part, rows[top : bottom + 1] - down.start, columns[first : last + 1] - across.start)
        inside = covered > 1e-9
        window = stored[top:bottom, first:last]  # a view
        if inside.any() and not (window & inside).any():
            window[np.unravel_index(int(covered.argmax()), covered.shape)] = True
    return stored


def _covered(mask: NDArray[np.bool_], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each cell of a grid that the mask covers, (len(rows) - 1, len(columns) - 1).

    Args:
        mask: (H, W); pixel i covers [i, i + 1), and outside of it there is nothing.
        rows, columns: edges of the cells, equally far apart.
    """
    area = mask.astype(np.float64)
    for axis, edges in ((0, rows), (1, columns)):
        padding = [(1, 0) if one == axis else (0, 0) for one in (0, 1)]
        sums = np.cumsum(np.pad(area, padding), axis=axis)  # area up to each pixel edge
        at = np.clip(edges, 0, mask.shape[axis])
        below = np.minimum(at.astype(np.int64), mask.shape[axis] - 1)
        share = (at - below).reshape(-1, 1) if axis == 0 else (at - below).reshape(1, -1)
        until = np.take(sums, below, axis) * (1 - share) + np.take(sums, below + 1, axis) * share
        area = np.diff(until, axis=axis)
    return area / ((rows[1] - rows[0]) * (columns[1] - columns[0]))


def _touched(edges: NDArray[np.float64], pixels: slice) -> tuple[int, int]:
    """First and last (exclusive) cell between ``edges`` that some of ``pixels`` lie in."""
    first = int(np.searchsorted(edges, pixels.start, side="right")) - 1
    last = int(np.searchsorted(edges, pixels.stop, side="left"))
    return max(first, 0), min(last, len(edges) - 1)


@dataclass(frozen=True)
class MovedBoxes:
    """Boxes in pixels of the stored crop; ``boxes[i]`` is None where the crop left nothing of it.

    ``cut`` counts boxes of which a part lay outside, ``lost`` those of which all did.
    """

    boxes: tuple[Box | None, ...]
    cut: int
    lost: int

    @property
    def kept(self) -> tuple[Box, ...]:
        return tuple(box for box in self.boxes if box is not None)


def transform_boxes(boxes: Iterable[Box], size: tuple[int, int], resolution: int) -> MovedBoxes:
    """Move boxes from native pixels to the stored crop, in floats, nothing rounded.

    Args:
        boxes: native pixels; pixel i covers [i, i + 1).
        size: (width, height) of the stored file.
    """
    crop = Crop(*size, resolution)
    moved: list[Box | None] = []
    cut = 0
    for box in boxes:
        new = _move(box, crop)
        moved.append(new)
        whole = crop.scale * box.w, crop.scale * box.h
        cut += new is not None and (new.w < whole[0] - 1e-6 or new.h < whole[1] - 1e-6)
    return MovedBoxes(tuple(moved), cut, sum(box is None for box in moved))


def transform_phrases(phrases: Iterable[Phrase], size: tuple[int, int], resolution: int) -> tuple[Phrase, ...]:
    """Phrases with their boxes moved; one whose boxes are all lost stays, without boxes."""
    return tuple(replace(one, boxes=transform_boxes(one.boxes, size, resolution).kept) for one in phrases)


def _move(box: Box, crop: Crop) -> Box | None:
    left, upper, _, _ = crop.rectangle
    x0, x1 = ((edge - left) * crop.scale for edge in (box.x, box.x + box.w))
    y0, y1 = ((edge - upper) * crop.scale for edge in (box.y, box.y + box.h))
    x0, y0 = max(x0, 0.0), max(y0, 0.0)
    x1, y1 = min(x1, float(crop.resolution)), min(y1, float(crop.resolution))
    return Box(box.label, x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None
