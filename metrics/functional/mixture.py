"""Two-component Gaussian mixture of the values of each map, fitted for all maps at once. Source: own; the rules (start
from 2-means, stop at a gain of 1e-3, 100 rounds, 1e-6 added to variances) are those of scikit-learn's
``GaussianMixture``, which the published code calls unseeded."""

import math

import torch
from torch import Tensor

STOP, ROUNDS, REGULARISATION = 1e-3, 100, 1e-6


def fit_two_gaussians(rows: Tensor) -> Tensor:
    """Means (N, 2), lower first at the start, of a mixture fitted to each row (N, P) of standardised values.

    EM stops long before it converges, by design: attention values are seldom two Gaussians, and the maximum of the
    likelihood lies up to two standard deviations from where the published code stops. So the start is part of the
    definition; 2-means from the mean is deterministic and within scikit-learn's spread over seeds.
    """
    squares = rows.square()
    upper = _two_means(rows).double()
    weight, mean, variance = _maximise(upper, rows, squares)
    previous = torch.full_like(rows[:, 0], -math.inf)
    active = torch.ones_like(previous, dtype=torch.bool)
    for _ in range(ROUNDS):
        log = [
            weight[:, k : k + 1].log()
            - 0.5 * (2 * math.pi * variance[:, k : k + 1]).log()
            - 0.5 * (rows - mean[:, k : k + 1]).square() / variance[:, k : k + 1]
            for k in (0, 1)
        ]
        odds = log[1] - log[0]
        likelihood = (log[0] + torch.nn.functional.softplus(odds)).mean(dim=1)
        update = _maximise(odds.sigmoid(), rows, squares)
        # A row that has stopped keeps its fit, so that it does not depend on the other maps of the batch.
        weight, mean, variance = (
            torch.where(active[:, None], new, old) for new, old in zip(update, (weight, mean, variance), strict=True)
        )
        active = active & ((likelihood - previous).abs() >= STOP)
        previous = likelihood
        if not active.any():
            break
    return mean


def _two_means(rows: Tensor) -> Tensor:
    """(N, P) bool: the upper cluster of 2-means. Started at the mean, so neither cluster can be empty."""
    cut = rows.mean(dim=1, keepdim=True)
    upper = rows > cut
    for _ in range(ROUNDS):
        count = upper.sum(dim=1, keepdim=True)
        high = (rows * upper).sum(dim=1, keepdim=True) / count
        low = (rows * ~upper).sum(dim=1, keepdim=True) / (rows.shape[1] - count)
        moved = rows > (high + low) / 2
        if torch.equal(moved, upper):
            break
        upper = moved
    return upper


def _maximise(upper: Tensor, rows: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and variances (N, 2) from the responsibility of the upper component (N, P)."""
    share = torch.stack([1 - upper, upper], dim=1)
    count = share.sum(dim=2) + 10 * torch.finfo(rows.dtype).eps
    mean = (share @ rows[:, :, None]).squeeze(2) / count
    variance = (share @ squares[:, :, None]).squeeze(2) / count - mean.square()
    return count / count.sum(dim=1, keepdim=True), mean, variance.clamp_min(0.0) + REGULARISATION
