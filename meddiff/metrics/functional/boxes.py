"""Boxes as pixels, by one rule for everything that is scored: a pixel belongs to a box when its centre lies inside, the
left and upper edge counted in; a box without any centre gets the pixel that holds its own.
Source: spec/tradeoff.md, section 11 (a small box vanishes otherwise); the rule own."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError

#: (K, 4) of x, y, width, height in pixels; x and y of the upper left corner.
Boxes = Tensor | NDArray[np.generic]

Window = tuple[slice, slice]


def box_table(boxes: Boxes) -> NDArray[np.float64]:
    """The boxes as a float64 array (K, 4).

    Raises:
        UserError: another shape.
    """
    table = np.asarray(boxes.detach().cpu() if isinstance(boxes, Tensor) else boxes, np.float64)
    if table.ndim != 2 or table.shape[1] != 4:
        raise UserError(f"boxes have the shape {table.shape}; (K, 4) of x, y, width, height is expected.")
    return table


def box_windows(boxes: Boxes, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> list[Window]:
    """(rows, columns) of each box on a grid of ``size`` (height, width); at least one pixel each.

    Args:
        boxes: (K, 4) of x, y, width, height.
        scale: (vertical, horizontal) factors from the pixels of the boxes to those of the grid.

    Raises:
        UserError: not (K, 4), or a box that lies outside the grid.

    Example:
        >>> box_windows(np.array([[0.6, 1.0, 2.0, 0.2]]), (4, 4))
        [(slice(1, 2, None), slice(1, 3, None))]
    """
    windows = []
    for x, y, width, height in box_table(boxes).tolist():
        across = _span(x * scale[1], (x + width) * scale[1], size[1])
        down = _span(y * scale[0], (y + height) * scale[0], size[0])
        if across is None or down is None:
            raise UserError(f"box {[x, y, width, height]} lies outside an image of {size}: cut boxes to it first.")
        windows.append((down, across))
    return windows


def box_masks(boxes: Boxes, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """(K, H, W) bool, one image a box; arguments and errors as :func:`box_windows`.

    Example:
        >>> box_masks(np.array([[0, 0, 1, 1], [1, 0, 2, 1]]), (1, 3)).int().tolist()
        [[[1, 0, 0]], [[0, 1, 1]]]
    """
    windows = box_windows(boxes, size, scale)
    masks = torch.zeros(len(windows), *size, dtype=torch.bool)
    for mask, window in zip(masks, windows, strict=True):
        mask[window] = True
    return masks


def _span(start: float, stop: float, length: int) -> slice | None:
    """Pixels whose centres lie between two edges, at least one; None where the span misses the axis.

    ``round`` would take halves to the even neighbour: equal boxes would get two, three or four columns by where they lie.
    """
    if not (stop > start and stop > 0 and start < length and math.isfinite(start) and math.isfinite(stop)):
        return None
    start, stop = max(start, 0.0), min(stop, float(length))
    first, end = math.ceil(start - 0.5), math.ceil(stop - 0.5)
    if first >= end:  # between two centres: the pixel in which the middle of the box lies
        first = min(int((start + stop) / 2), length - 1)
        end = first + 1
    return slice(first, end)
