"""Two-component Gaussian mixture of the values of each map, fitted for all maps at once. Source: own; the rules (start
from 2-means, stop at a gain of 1e-3, 100 rounds, 1e-6 added to variances) are those of scikit-learn's
``GaussianMixture``, which the published code calls unseeded."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

STOP, ROUNDS, REGULARISATION = 1e-3, 100, 1e-6


class Fit(NamedTuple):
    """Of the two components of each row, (N, 2) each."""

    weight: Tensor
    mean: Tensor
    variance: Tensor


def fit_two_gaussians(rows: Tensor) -> Tensor:
    """Means (N, 2), lower first at the start, of a mixture fitted to each row (N, P) of centred values.

    EM stops long before it converges, by design: attention values are seldom two Gaussians, and the maximum of the
    likelihood lies up to two standard deviations from where the published code stops. So the start is part of the
    definition; 2-means from the mean is deterministic and within scikit-learn's spread over seeds.
    """
    size = rows.shape[1]
    squares = rows.square()
    total, square = rows.sum(dim=1), squares.sum(dim=1)
    fit = _maximise(_two_means(rows).double(), rows, squares, total, square)
    previous = torch.full_like(total, -math.inf)
    result, running = fit.mean.clone(), torch.arange(len(rows), device=rows.device)
    for _ in range(ROUNDS):
        # The logarithm of each component's density is a parabola: constant + linear x + quadratic x^2, (N, 2) each.
        quadratic, linear = -0.5 / fit.variance, fit.mean / fit.variance
        constant = fit.weight.log() - 0.5 * (2 * math.pi * fit.variance).log() - 0.5 * fit.mean * linear
        a, b, c = ((part[:, 1] - part[:, 0])[:, None] for part in (quadratic, linear, constant))
        odds = torch.addcmul(c, torch.addcmul(b, a, rows), rows)
        upper = odds.sigmoid()
        lower = constant[:, 0] + (linear[:, 0] * total + quadratic[:, 0] * square) / size
        likelihood = lower + torch.nn.functional.softplus(odds).mean(dim=1)
        fit = _maximise(upper, rows, squares, total, square)
        result[running] = fit.mean
        going = (likelihood - previous).abs() >= STOP
        previous = likelihood
        if not bool(going.all()):  # a row that has stopped keeps its fit and costs nothing more
            running = running[going]
            if not len(running):
                break
            rows, squares, total, square = rows[going], squares[going], total[going], square[going]
            previous, fit = previous[going], Fit(*(part[going] for part in fit))
    return result


def _two_means(rows: Tensor) -> Tensor:
    """(N, P) bool: the upper cluster of 2-means. Started at the mean, so neither cluster can be empty."""
    size, total = rows.shape[1], rows.sum(dim=1)
    upper = rows > (total / size)[:, None]
    for _ in range(ROUNDS):
        weights = upper.double()
        count, high = weights.sum(dim=1), torch.linalg.vecdot(weights, rows)
        moved = rows > ((high / count + (total - high) / (size - count)) / 2)[:, None]
        if torch.equal(moved, upper):
            break
        upper = moved
    return upper


def _maximise(upper: Tensor, rows: Tensor, squares: Tensor, total: Tensor, square: Tensor) -> Fit:
    """The fit to the responsibility of the upper component (N, P); the lower one has what is left of the totals (N,)."""
    count, first, second = upper.sum(dim=1), torch.linalg.vecdot(upper, rows), torch.linalg.vecdot(upper, squares)
    counts = torch.stack([rows.shape[1] - count, count], dim=1) + 10 * torch.finfo(rows.dtype).eps
    mean = torch.stack([total - first, first], dim=1) / counts
    variance = torch.stack([square - second, second], dim=1) / counts - mean.square()
    return Fit(counts / counts.sum(dim=1, keepdim=True), mean, variance.clamp_min(0.0) + REGULARISATION)
