"""Contrast-to-noise ratio of a map between the inside and the outside of a region.

Source: Dombrowski et al. (AAAI 2024), as the published code computes it (spec/tradeoff.md, section 6): signed, union of
boxes, variances with n - 1. BioViL (Boecker et al., ECCV 2022) takes the absolute value.
"""

import torch
from torch import Tensor

from metrics.functional.checks import defined, map_rows, mask_rows


def contrast_to_noise_ratio(maps: Tensor, masks: Tensor, absolute: bool = False, unbiased: bool = True) -> Tensor:
    """``(mean_in - mean_out) / sqrt(var_in + var_out)`` of each map.

    Invariant to a positive affine change of the map. Needs about six float64 copies of the maps.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool, true inside.
        absolute: without the sign, as BioViL.
        unbiased: divide the variances by n - 1, as the paper; false: by n.

    Returns:
        (N,) float64; NaN where the ratio is undefined: nothing inside or outside, no variance on either side, a single
        pixel on one side while ``unbiased``, or a map that is not finite.

    Raises:
        UserError: shapes differ, or masks are not boolean.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[5.0, 3.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 5.0]]])
        >>> masks = torch.tensor([[[True, True], [False, False]]]).expand(2, 2, 2)
        >>> [round(v, 4) for v in contrast_to_noise_ratio(maps, masks).tolist()]
        [2.2136, -2.2136]
    """
    values, finite = map_rows(maps)
    # Centred first: beside a large offset the rounding of the two means would show in their difference.
    values = values - values.mean(dim=1, keepdim=True)
    inside = mask_rows(masks, maps)
    mean_in, var_in, varies_in = _moments(values, inside, unbiased)
    mean_out, var_out, varies_out = _moments(values, ~inside, unbiased)
    ratio = (mean_in - mean_out) / (var_in + var_out).sqrt()
    return defined(ratio.abs() if absolute else ratio, finite & (varies_in | varies_out))


def _moments(values: Tensor, region: Tensor, unbiased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and whether the values differ, of each row (N, P) within its region (N, P)."""
    count = region.sum(dim=1)
    mean = torch.where(region, values, 0.0).sum(dim=1) / count
    # A single pixel becomes 0 / 0 while unbiased, as it should.
    variance = torch.where(region, values - mean[:, None], 0.0).square().sum(dim=1) / (count - int(unbiased))
    # Exact: for a region of one value, rounding of its mean may leave a variance of 1e-33, and a ratio of 1e16.
    infinity = float("inf")
    highest, lowest = (values.masked_fill(~region, s * infinity) for s in (-1, 1))
    return mean, variance, highest.amax(dim=1) > lowest.amin(dim=1)
