"""Frechet distance between two sets of features, over any extractor.

Source: Heusel et al. (NeurIPS 2017), ``d^2 = |mu_a - mu_b|^2 + tr A + tr B - 2 tr sqrt(A^1/2 B A^1/2)``.
The numerics are our own.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What the Frechet distance needs of a set: size, mean (D,) and covariance (D, D; n - 1), both float64."""

    n: int
    mean: Tensor
    covariance: Tensor

    @cached_property
    def root(self) -> Tensor:
        """(D, rank) V sqrt(l) of the covariance, kept: a reference set meets many others, and this is half of the work.

        The square root up to a rotation that singular values do not see, without the part that is rounding.
        """
        values, vectors = torch.linalg.eigh((self.covariance + self.covariance.T) / 2)
        keep = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        root: Tensor = vectors[:, keep] * values[keep].sqrt()
        return root


def check_features(features: Tensor, name: str = "features") -> Tensor:
    """(N, D) float64.

    Raises:
        UserError: another shape, fewer than two rows, or values that are not finite.
    """
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] == 0:
        raise UserError(f"{name} have the shape {tuple(features.shape)}; (N, D) with N of 2 or more is needed.")
    features = as_double(features)
    if not features.isfinite().all():
        raise UserError(f"{name} hold values that are not finite: look at the images they come from.")
    return features


def feature_statistics(features: Tensor) -> FeatureStatistics:
    """Statistics of the rows of ``features`` (N, D), any float type.

    Raises:
        UserError: not (N, D), fewer than two rows, or values that are not finite.

    Example:
        >>> import torch
        >>> feature_statistics(torch.tensor([[0.0, 0.0], [2.0, 4.0]])).covariance.tolist()
        [[2.0, 4.0], [4.0, 8.0]]
    """
    features = check_features(features)
    mean = features.mean(dim=0)
    centred = features - mean
    return FeatureStatistics(len(features), mean, centred.T @ centred / (len(features) - 1))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared Frechet distance between two Gaussians (what the literature calls FID), finite and not negative.

    tr sqrt(A^1/2 B A^1/2) is the sum of the singular values of A^1/2 B^1/2. Taken so, a set against itself gives zero to
    rounding also when the covariance has no full rank; square roots of eigenvalues would turn rounding of 1e-16 into 1e-8
    once for each missing rank, and scipy's ``sqrtm`` fails there. 2,048 features: about 15 s on one CPU core.

    Raises:
        UserError: different numbers of features.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> same, moved = feature_statistics(x), feature_statistics(x + 3.0)
        >>> round(frechet_distance(same, same), 9), round(frechet_distance(same, moved), 9)
        (0.0, 18.0)
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"statistics of {len(a.mean)} and of {len(b.mean)} features: both need the same extractor.")
    overlap = torch.linalg.svdvals(a.root.T @ b.root).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))
