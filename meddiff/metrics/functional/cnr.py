"""Contrast-to-noise ratio of a map between the inside and the outside of a region.

Source: Dombrowski et al. (AAAI 2024), as the published code computes it (spec/tradeoff.md, section 6): signed, union of
boxes, variances with n - 1. BioViL (Boecking et al., ECCV 2022) takes the absolute value; a third-party evaluation of it
takes each box alone, with variances divided by n.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.boxes import Boxes, Window, box_windows
from meddiff.metrics.functional.checks import NAN, bounds, defined, mask_rows, native_rows

#: What a box is compared with: all that lies in no box, or all but itself and the boxes before it.
Exterior = Literal["no_box", "later"]

Values = NDArray[np.floating]
Sums = tuple[float, float, float]

#: A region is flat where its standard deviation is below this part of the map's range: only rounding is left of it.
FLAT = 1e-13


class Moments(NamedTuple):
    """Of a region, (N,) float64 each: how many pixels, their mean over the map's lowest value, the squares around it."""

    pixels: Tensor
    mean: Tensor
    squares: Tensor

    def variance(self, unbiased: bool) -> Tensor:
        """(N,); a single pixel has none while ``unbiased``: 0 / 0 is NaN, as it should be."""
        return self.squares / (self.pixels - int(unbiased))


class Regions(NamedTuple):
    """Moments on both sides of a region, the range of the map, and whether the map is finite; (N,) each."""

    inside: Moments
    outside: Moments
    extent: Tensor
    finite: Tensor

    def ratio(self, absolute: bool = False, unbiased: bool = True) -> Tensor:
        """The contrast-to-noise ratios (N,); arguments and NaN as :func:`contrast_to_noise_ratio`."""
        noise = self.inside.variance(unbiased) + self.outside.variance(unbiased)
        contrast = (self.inside.mean - self.outside.mean) / noise.sqrt()
        return defined(contrast.abs() if absolute else contrast, self.finite & (noise > (FLAT * self.extent).square()))


def region_moments(maps: Tensor, masks: Tensor) -> Regions:
    """What every variant of the ratio needs, so that several cost one pass.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool, true inside.

    Raises:
        UserError: shapes differ, or masks are not boolean.
    """
    inside = mask_rows(masks, maps)
    return _between(maps, inside, ~inside)


def _between(maps: Tensor, inside: Tensor, outside: Tensor) -> Regions:
    """Moments of maps (N, H, W) on two regions, rows (N, P) each."""
    values, lowest, extent, finite = _rows(maps)
    within, around = (
        [_moments(row[mask], low) for row, mask, low in zip(values, masks.cpu().numpy(), lowest, strict=True)]
        for masks in (inside, outside)
    )
    return Regions(_stack(within, finite), _stack(around, finite), extent, finite)


def masked_ratio(maps: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """As :func:`contrast_to_noise_ratio`, of two regions (N, H, W) that need not be all of the map.

    Raises:
        UserError: shapes differ, or regions are not boolean.
    """
    return _between(maps, mask_rows(inside, maps), mask_rows(outside, maps)).ratio()


def contrast_to_noise_ratio(maps: Tensor, masks: Tensor, absolute: bool = False, unbiased: bool = True) -> Tensor:
    """``(mean_in - mean_out) / sqrt(var_in + var_out)`` of each map.

    Invariant to a positive affine change of the map. Needs about six float64 copies of the maps.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool, true inside.
        absolute: without the sign, as BioViL.
        unbiased: divide the variances by n - 1, as the paper; false: by n.

    Returns:
        (N,) float64; NaN where the ratio is undefined: nothing inside or outside, no variance on either side (beyond
        rounding), a single pixel on one side while ``unbiased``, or a map that is not finite.

    Raises:
        UserError: shapes differ, or masks are not boolean.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[5.0, 3.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 5.0]]])
        >>> masks = torch.tensor([[[True, True], [False, False]]]).expand(2, 2, 2)
        >>> [round(v, 4) for v in contrast_to_noise_ratio(maps, masks).tolist()]
        [2.2136, -2.2136]
    """
    return region_moments(maps, masks).ratio(absolute, unbiased)


def box_contrast_to_noise_ratio(
    maps: Tensor,
    boxes: Sequence[Boxes],
    absolute: bool = False,
    unbiased: bool = True,
    exterior: Exterior = "no_box",
) -> Tensor:
    """Mean over the boxes of a map of the ratio between one box and what lies outside.

    Args:
        maps: (N, H, W) float.
        boxes: N arrays (K, 4) of x, y, width, height in pixels of the maps.
        absolute: without the sign, box by box.
        unbiased: as in :func:`contrast_to_noise_ratio`.
        exterior: "no_box" compares every box with the pixels in no box (with one box this is the ratio of the union);
            "later" is the third-party code's (spec/tradeoff.md, section 6): the other boxes count as outside until
            their turn comes, so that the order of the boxes matters. Its variances are biased.

    Returns:
        (N,) float64; NaN where there is no box or the ratio of one box is undefined.

    Raises:
        UserError: not N arrays of boxes, a box outside the map, or an unknown exterior.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[5.0, 3.0, 1.0, 0.0, 9.0, 7.0]]])
        >>> boxes = [torch.tensor([[0, 0, 2, 1], [4, 0, 2, 1]])]
        >>> round(box_contrast_to_noise_ratio(maps, boxes).item(), 3)
        3.479
    """
    if exterior not in ("no_box", "later"):
        raise UserError(f"exterior is {exterior!r}; it is 'no_box' or 'later'.")
    if len(boxes) != len(maps):
        raise UserError(f"{len(boxes)} arrays of boxes for {len(maps)} maps: one for each is needed.")
    values, lowest, extent, finite = _rows(maps)
    size = (maps.shape[1], maps.shape[2])
    scores = torch.full_like(extent, NAN)
    for n, image in enumerate(values.reshape(maps.shape)):
        windows = box_windows(boxes[n], size)
        if windows:
            within = [_moments(image[window].ravel(), lowest[n]) for window in windows]
            around = _surroundings(image, lowest[n], windows, exterior)
            regions = Regions(_stack(within, finite), _stack(around, finite), extent[n], finite[n])
            scores[n] = regions.ratio(absolute, unbiased).mean()
    return scores


def _surroundings(image: Values, lowest: float, windows: Sequence[Window], exterior: Exterior) -> list[Sums]:
    """What each box of an image (H, W) is compared with."""
    outside, found = np.ones(image.shape, bool), []
    for window in windows:
        outside[window] = False
        if exterior == "later":
            found.append(_moments(image[outside], lowest))
    return found or [_moments(image[outside], lowest)] * len(windows)


def _rows(maps: Tensor) -> tuple[Values, list[float], Tensor, Tensor]:
    """Rows (N, P), their lowest values and their range (N,), and whether they are finite (N,).

    In numpy: its selection by a mask is five times faster than that of torch on a CPU, and this is where the time goes.
    """
    values, finite = native_rows(maps)
    low, high = (bound.double() for bound in bounds(values))
    return values.cpu().numpy(), low.tolist(), high - low, finite


def _moments(values: Values, lowest: float) -> Sums:
    """Count, mean and squares of (n,) values in float64; two passes, so that no digits cancel."""
    if not len(values):
        return 0.0, NAN, NAN
    # Less the lowest of the map: beside a large offset the rounding of two means would show in their difference.
    away = np.subtract(values, lowest, dtype=np.float64)
    mean = float(away.mean())
    away -= mean
    return float(len(values)), mean, float(away @ away)


def _stack(sums: Sequence[Sums], like: Tensor) -> Moments:
    return Moments(*torch.tensor(sums, dtype=torch.float64, device=like.device).reshape(-1, 3).unbind(dim=1))
