"""Kernel distance between two sets of features (KID). Source: Binkowski et al., "Demystifying MMD GANs" (ICLR 2018)."""

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.frechet import check_features

#: Rows a block of the kernel matrix has; 1,024 x 1,024 float64 are 8 MiB.
CHUNK = 1024


def kernel_distance(real: Tensor, fake: Tensor, degree: int = 3) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x.y / D + 1) ** degree``.

    Over all pairs, not over random subsets as the paper's code: one number without a seed. Being unbiased it can be
    slightly negative. Block by block in float64, so memory does not grow with the sets.

    Args:
        real: (N, D) float.
        fake: (M, D) float.
        degree: of the polynomial, 1 or more.

    Raises:
        UserError: shapes do not fit, fewer than two rows, values that are not finite, or a degree under 1.

    Example:
        >>> import torch
        >>> real, fake = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
        >>> kernel_distance(real, fake)
        297.5
    """
    if degree < 1:
        raise UserError(f"degree is {degree}; a polynomial kernel has a degree of 1 or more.")
    real, fake = check_features(real, "real features"), check_features(fake, "fake features")
    if real.shape[1] != fake.shape[1]:
        raise UserError(f"{real.shape[1]} real and {fake.shape[1]} fake features: both need the same extractor.")
    fake = fake.to(real.device)
    return _mean_within(real, degree) + _mean_within(fake, degree) - 2 * _mean_between(real, fake, degree)


def _kernel(x: Tensor, y: Tensor, degree: int) -> Tensor:
    return (x @ y.T / x.shape[1] + 1.0) ** degree


def _mean_between(x: Tensor, y: Tensor, degree: int) -> float:
    total = sum(_kernel(a, b, degree).sum() for a in x.split(CHUNK) for b in y.split(CHUNK))
    return float(total) / (len(x) * len(y))


def _mean_within(x: Tensor, degree: int) -> float:
    """Mean of the kernel over pairs of different rows; blocks under the diagonal equal those above it."""
    blocks = x.split(CHUNK)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for i, a in enumerate(blocks):
        own = _kernel(a, a, degree)
        total += own.sum() - own.trace()
        for b in blocks[i + 1 :]:
            total += 2 * _kernel(a, b, degree).sum()
    return float(total) / (len(x) * (len(x) - 1))
