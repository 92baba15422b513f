"""Top-1 localisation: does the strongest pixel lie in the region?

Source: spec/tradeoff.md, section 6 (ground truth at the first argmax); the tolerance is the margin of the pointing game
(Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018).
"""

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import defined, mask_rows, native_rows, varies


def pointing_game(maps: Tensor, masks: Tensor, tolerance: float = 0.0) -> Tensor:
    """1 where the first maximum of a map lies in its mask, or at most ``tolerance`` pixels from it, else 0.

    Args:
        maps: (N, H, W) float. Of several equal maxima the first in reading order counts.
        masks: (N, H, W) bool, true inside.
        tolerance: Euclidean distance in pixels; 0 is the paper's rule.

    Returns:
        (N,) float64, 0 or 1; NaN where the map is constant or not finite (it points nowhere), or the mask is empty
        (there is nothing to point at).

    Raises:
        UserError: shapes differ, masks are not boolean, or the tolerance is negative.

    Example:
        >>> import torch
        >>> maps, masks = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5, dtype=torch.bool)
        >>> maps[0, 2, 4], masks[0, 2, 0:3] = 1.0, True
        >>> pointing_game(maps, masks).item(), pointing_game(maps, masks, tolerance=2).item()
        (0.0, 1.0)
    """
    if tolerance < 0:
        raise UserError(f"tolerance is {tolerance}; it is a distance in pixels, 0 or more.")
    values, finite = native_rows(maps)
    inside = mask_rows(masks, maps)
    peak = _first_maxima(values)
    hit = inside.gather(1, peak).squeeze(1)
    if tolerance > 0:
        width = maps.shape[2]
        pixels = torch.arange(values.shape[1], device=values.device)
        rows, columns = pixels // width - peak // width, pixels % width - peak % width
        hit = (inside & (rows**2 + columns**2 <= tolerance**2)).any(dim=1)
    return defined(hit.double(), finite & varies(values) & inside.any(dim=1))


def _first_maxima(values: Tensor) -> Tensor:
    """(N, 1) places of the first maxima of rows (N, P)."""
    if values.device.type == "cpu":  # numpy finds them ten times faster
        return torch.from_numpy(values.numpy().argmax(axis=1, keepdims=True))
    return values.argmax(dim=1, keepdim=True)
