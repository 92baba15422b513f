"""What rival protocols do to a map before it is scored: smooth it, and cut its background away.

Source: Vilouras et al., zero-shot phrase grounding with a latent diffusion model (Gaussian, then Otsu with two classes, below
which the map is 0); Otsu 1979. Own code.
"""

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.ranges import NOT_NEGATIVE
from meddiff.metrics.functional.checks import NAN, as_double, bounds, check_shape, map_rows, varies
from meddiff.metrics.functional.resize import min_max

#: Bins of the histogram between a map's lowest and highest value.
BINS = 256


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps (N, H, W) under a Gaussian of ``sigma`` pixels, its border reflected; float64 (N, H, W).

    Raises:
        UserError: maps are not (N, H, W), or a negative sigma.

    Example:
        >>> import torch
        >>> smoothed(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]]), 0.5).round(decimals=3).tolist()
        [[[0.0, 0.106, 0.787, 0.106, 0.0]]]
    """
    from scipy.ndimage import gaussian_filter  # here: a tenth of a second that the other metrics need not wait for

    check_shape(maps)
    if not NOT_NEGATIVE.holds(sigma):
        raise UserError(f"sigma is {sigma}; it must {NOT_NEGATIVE}.")
    values = as_double(maps)
    found = gaussian_filter(values.cpu().numpy(), sigma, mode="reflect", axes=(1, 2)) if sigma else values.cpu().numpy()
    return torch.from_numpy(found).to(values.device)


def otsu_threshold(maps: Tensor) -> Tensor:
    """The cut that parts the values of each map into two classes of least variance, (N,) float64 in the map's own units.

    Values are counted in :data:`BINS` bins between lowest and highest; the cut is the upper edge of the last bin of the lower
    class, so a value above it belongs to the upper one.

    Returns:
        NaN where the map is constant or not finite.

    Raises:
        UserError: maps are not (N, H, W).

    Example:
        >>> import torch
        >>> cut = otsu_threshold(torch.tensor([[[0.0, 0.1, 0.2], [8.0, 8.1, 8.2]]]))
        >>> 0.2 < cut.item() < 8.0
        True
    """
    values, finite = map_rows(maps)
    usable = finite & varies(values)
    low, high = bounds(values)  # (N,) each
    width = ((high - low) / BINS).clamp_min(torch.finfo(torch.float64).tiny)
    place = ((values - low[:, None]) / width[:, None]).floor().long().clamp(max=BINS - 1)  # (N, P)
    counts = torch.zeros(len(values), BINS, dtype=torch.float64, device=values.device)
    counts.scatter_add_(1, place, torch.ones_like(values))
    middles = torch.arange(BINS, dtype=torch.float64, device=values.device) + 0.5
    below, first = counts.cumsum(dim=1), (counts * middles).cumsum(dim=1)  # (N, BINS)
    above = below[:, -1:] - below
    lower, upper = first / below, (first[:, -1:] - first) / above
    between = (below * above * (upper - lower).square()).nan_to_num(-1.0)  # no class is empty
    best = between.argmax(dim=1)  # the first of equal ones
    cut = low + (best + 1) * width
    return torch.where(usable, cut, torch.full_like(cut, NAN))


def otsu_zeroed(maps: Tensor) -> Tensor:
    """Maps from 0 to 1, (N, H, W) float64, with 0 wherever they do not lie above Otsu's cut; NaN as :func:`min_max`.

    Example:
        >>> import torch
        >>> otsu_zeroed(torch.tensor([[[0.0, 2.0, 9.0, 10.0]]])).tolist()
        [[[0.0, 0.0, 0.9, 1.0]]]
    """
    scaled = min_max(maps)
    cut = otsu_threshold(scaled)[:, None, None]
    return scaled.where((scaled > cut) | scaled.isnan(), torch.zeros_like(scaled))
