"""Vendi score: the effective number of different images in a set. Source: Friedman and Dieng (TMLR 2023), order 1."""

import math

import torch
from torch import Tensor

from meddiff.metrics.functional.frechet import check_features


def vendi_score(features: Tensor, centre: Tensor | None = None) -> float:
    """Exponential of the entropy of the eigenvalues of the cosine similarities, over N.

    Args:
        features: (N, D) float; rows are brought to length 1.
        centre: (D,) is taken off first. Features of chest X-rays are nearly parallel, and without it every set has a score near
            1: take the mean of real images, and read the ratio to held-out images of the same N.

    Returns:
        Between 1 (all alike) and N; NaN where a row is zero.

    Raises:
        UserError: not (N, D), fewer than two rows, or values that are not finite.

    Example:
        >>> import torch
        >>> round(vendi_score(torch.tensor([[1.0, 0.0], [1.0, 1.0]])), 4)
        1.5166
    """
    features = check_features(features)
    features = features if centre is None else features - centre.to(features)
    length = features.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()):
        return math.nan
    unit = features / length
    wide = unit.shape[1] > len(unit)
    values = torch.linalg.eigvalsh((unit @ unit.T if wide else unit.T @ unit) / len(unit))  # the smaller of both sides
    values = values[values > 0]
    return float(torch.exp(-(values * values.log()).sum()))
