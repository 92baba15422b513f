"""Multi-scale structural similarity of pairs of images.

Source: Wang, Simoncelli & Bovik (Asilomar 2003) with a Gaussian window of 11 px and sigma 1.5, as torchmetrics computes it
(reflected borders, negative terms set to zero), which the paper's code uses (spec/tradeoff.md, section 7). The Gaussian is
applied as two matrix products, which on a CPU takes a small part of torchmetrics' time.
"""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double

#: Exponents of the five scales, from fine to coarse (Wang et al., 2003).
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
#: Values compared at once; some twenty float64 copies of them are alive at the peak.
VALUES = 2**20


def scales_for(height: int, width: int) -> int:
    """How many of the five scales an image of this size allows (torchmetrics' rule); 0 where not even one fits.

    Example:
        >>> [scales_for(side, side) for side in (512, 128, 64, 32, 8)]
        [5, 4, 3, 2, 0]
    """
    side = min(height, width)
    allowed = [n for n in range(1, len(BETAS) + 1) if side >= 2**n and side // max(1, n - 1) ** 2 > WINDOW - 1]
    return max(allowed, default=0)


def scale_weights(scales: int) -> tuple[float, ...]:
    """The first ``scales`` exponents, brought to the sum of all five.

    Example:
        >>> round(sum(scale_weights(4)), 4) == round(sum(scale_weights(5)), 4)
        True
    """
    kept = BETAS[:scales]
    return BETAS if scales == len(BETAS) else tuple(beta * sum(BETAS) / sum(kept) for beta in kept)


def multiscale_similarity(a: Tensor, b: Tensor, data_range: float | None = 255.0) -> Tensor:
    """MS-SSIM of each pair.

    Images that are too small for five scales are compared at as many as `scales_for` says, with `scale_weights`: such
    values compare among themselves only.

    Args:
        a: (N, C, H, W), float or bytes.
        b: the same.
        data_range: largest minus smallest value that images can have; None takes it from each pair, anew at every scale,
            as torchmetrics does when nothing is said (the paper's way).

    Returns:
        (N,) float64; 1 for equal images, NaN where it is undefined (a pair without contrast and ``data_range`` None).

    Raises:
        UserError: shapes differ, or images of 10 px or less.

    Example:
        >>> import torch
        >>> x = torch.arange(32 * 32).reshape(1, 1, 32, 32) % 251
        >>> [round(value, 12) for value in multiscale_similarity(x, x).tolist()]
        [1.0]
    """
    if a.ndim != 4 or a.shape != b.shape:
        raise UserError(
            f"images have the shapes {tuple(a.shape)} and {tuple(b.shape)}; (N, C, H, W) twice is expected."
        )
    scales = scales_for(*a.shape[-2:])
    if not scales:
        raise UserError(f"images of {a.shape[-2]} x {a.shape[-1]} px are smaller than the window of MS-SSIM (11 px).")
    chunk = max(1, VALUES // a.shape[1:].numel())
    parts = [_compare(x, y, scales, data_range) for x, y in zip(a.split(chunk), b.split(chunk), strict=True)]
    return torch.cat(parts)


def structural_similarity(a: Tensor, b: Tensor, data_range: float = 255.0) -> Tensor:
    """SSIM of each pair at its own scale alone, over the same window.

    Args:
        a, b: (N, C, H, W), float or bytes.
        data_range: largest minus smallest value that images can have.

    Returns:
        (N,) float64; 1 for equal images, NaN where one is not finite.

    Raises:
        UserError: shapes differ, or images of less than 11 px.
    """
    if a.ndim != 4 or a.shape != b.shape:
        raise UserError(
            f"images have the shapes {tuple(a.shape)} and {tuple(b.shape)}; (N, C, H, W) twice is expected."
        )
    if min(a.shape[-2:]) < WINDOW:
        raise UserError(f"images of {a.shape[-2]} x {a.shape[-1]} px are smaller than the window of SSIM (11 px).")
    chunk = max(1, VALUES // a.shape[1:].numel())
    spans = as_double(a).new_full((1, 1, 1, 1), data_range)
    pairs = zip(a.split(chunk), b.split(chunk), strict=True)
    return torch.cat([_similarity(as_double(x), as_double(y), spans)[0] for x, y in pairs])


def _compare(a: Tensor, b: Tensor, scales: int, data_range: float | None) -> Tensor:
    a, b = _merged_channels(as_double(a), as_double(b))
    result = a.new_ones(len(a))
    for scale, beta in enumerate(scale_weights(scales)):
        span = a.new_full((len(a),), data_range) if data_range is not None else torch.maximum(_span(a), _span(b))
        whole, contrast = _similarity(a, b, span[:, None, None, None])
        result = result * (whole if scale == scales - 1 else contrast).relu() ** beta
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result


def _merged_channels(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Grey images stored with equal channels need one channel only: the mean over channels is the same."""
    grey = all(bool((images == images[:, :1]).all()) for images in (a, b))
    return (a[:, :1], b[:, :1]) if grey else (a, b)


def _span(images: Tensor) -> Tensor:
    return images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))


def _similarity(a: Tensor, b: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM over all pixels, and mean of its contrast-structure part over those whose window lies inside: (N,) both."""
    rows, columns = (_blur_matrix(side, a) for side in a.shape[-2:])

    def blurred(images: Tensor) -> Tensor:
        return rows @ images @ columns.T

    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    mean_a, mean_b = blurred(a), blurred(b)
    var_a = (blurred(a * a) - mean_a * mean_a).clamp(min=0.0)
    var_b = (blurred(b * b) - mean_b * mean_b).clamp(min=0.0)
    contrast = (2 * (blurred(a * b) - mean_a * mean_b) + c2) / (var_a + var_b + c2)  # (N, C, H, W)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    pad = WINDOW // 2
    inside = contrast[..., pad:-pad, pad:-pad]
    return (luminance * contrast).mean(dim=(1, 2, 3)), inside.mean(dim=(1, 2, 3))


def _blur_matrix(side: int, like: Tensor) -> Tensor:
    """(side, side): the Gaussian window along one axis, with the border reflected."""
    offsets = torch.arange(WINDOW, device=like.device) - WINDOW // 2
    window = torch.exp(-0.5 * (offsets.to(like) / SIGMA) ** 2)
    places = (torch.arange(side, device=like.device)[:, None] + offsets).abs()  # reflected at 0 ...
    places = torch.where(places >= side, 2 * (side - 1) - places, places)  # ... and at the far end
    return like.new_zeros(side, side).scatter_add_(1, places, (window / window.sum()).expand(side, -1))


def pairwise_similarity(images: Tensor, data_range: float | None = 255.0) -> Tensor:
    """MS-SSIM of all pairs within one group of images, as :func:`multiscale_similarity`.

    Args:
        images: (N, C, H, W), N of 2 or more.

    Returns:
        (N (N - 1) / 2,) float64, in the order of ``itertools.combinations``.

    Raises:
        UserError: fewer than two images, or too small ones.
    """
    if images.ndim != 4 or len(images) < 2:
        raise UserError(f"images have the shape {tuple(images.shape)}; (N, C, H, W) with N of 2 or more is needed.")
    first, second = zip(*combinations(range(len(images)), 2), strict=True)
    return multiscale_similarity(images[list(first)], images[list(second)], data_range)
