"""Polygons filled pixel by pixel, the reference for masks of MS-COCO."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def inside_polygon(x: float, y: float, corners: Sequence[tuple[float, float]]) -> bool:
    """Even-odd rule, one ray to the left."""
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


def brute_polygon(points: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """(height, width), pixel by pixel."""
    corners = list(zip(points[::2], points[1::2], strict=True))
    rows = [[inside_polygon(x + 0.5, y + 0.5, corners) for x in range(width)] for y in range(height)]
    return np.array(rows).reshape(height, width)
