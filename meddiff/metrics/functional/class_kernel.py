"""Kernel distance of each class, with its numbers of images and an interval.

A Frechet distance of a class has a bias of about d (d + 1) / (2 N) for white features: over classes of different N it ranks
them by how frequent they are. The kernel distance is unbiased. Source: Binkowski et al. (ICLR 2018); the interval own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.metrics.functional.kid import CHUNK, kernel_distance
from meddiff.metrics.functional.neighbours import check_sets

#: Fewer images on a side have no interval.
FEWEST = 10


class ClassDistance(NamedTuple):
    """Kernel distance of one class; ends of its 95 % interval; images of the class."""

    distance: float
    low: float
    high: float
    real: int
    fake: int


def class_kernel_distance(
    real: Tensor,
    real_labels: Sequence[Sequence[str]],
    fake: Tensor,
    fake_labels: Sequence[Sequence[str]],
    classes: Sequence[str],
    draws: int = 200,
    seed: int = 0,
) -> dict[str, ClassDistance]:
    """Kernel distance between the images that have a class among their labels, class by class.

    Args:
        real: (N, D); fake: (M, D), float.
        real_labels, fake_labels: of each image; of generated ones those of the prompt, never what a classifier sees in them.
        draws: of the bootstrap over images; 0 gives no interval.

    Returns:
        class -> distance, NaN with fewer than two images on a side; the interval NaN below :data:`FEWEST`.

    Raises:
        UserError: shapes do not fit or values are not finite.
    """
    real, fake = check_sets(real, fake, ("real", "generated"))
    found = {}
    for name in classes:
        mine = [[i for i, names in enumerate(labels) if name in names] for labels in (real_labels, fake_labels)]
        n, m = map(len, mine)
        some = real[mine[0]], fake[mine[1]]
        distance = kernel_distance(*some) if min(n, m) > 1 else math.nan
        low, high = (
            bootstrap_interval(*some, draws, seed, name) if draws and min(n, m) >= FEWEST else (math.nan, math.nan)
        )
        found[name] = ClassDistance(distance, low, high, n, m)
    return found


def bootstrap_interval(real: Tensor, fake: Tensor, draws: int, seed: int, name: str = "") -> tuple[float, float]:
    """95 % interval of the kernel distance: images are drawn again, and an image is never paired with itself.

    With a pair of an image and its own copy, as in a plain bootstrap, every draw would be too large.

    Args:
        real: (N, D), fake: (M, D) float64.
        name: with ``seed`` the address of the draws.
    """
    weights = [
        torch.from_numpy(
            generator(seed, "kernel distance", name, side).multinomial(len(one), np.full(len(one), 1 / len(one)), draws)
        ).to(real)
        for side, one in (("real", real), ("fake", fake))
    ]  # (draws, N) and (draws, M)
    within = [_weighted(one, one, w, w, True) for one, w in zip((real, fake), weights, strict=True)]
    values = within[0] + within[1] - 2 * _weighted(real, fake, weights[0], weights[1], False)
    low, high = values.quantile(torch.tensor([0.025, 0.975]).to(values)).tolist()
    return low, high


def _weighted(x: Tensor, y: Tensor, u: Tensor, v: Tensor, same: bool) -> Tensor:
    """(draws,) means of the kernel over pairs weighted by u (draws, N) and v (draws, M); of one set without its diagonal."""
    total = torch.zeros(len(u)).to(x)
    for i in range(0, len(x), CHUNK):
        for j in range(0, len(y), CHUNK):
            kernel = (x[i : i + CHUNK] @ y[j : j + CHUNK].T / x.shape[1] + 1.0) ** 3
            if same and i == j:
                kernel.fill_diagonal_(0.0)
            total += ((u[:, i : i + CHUNK] @ kernel) * v[:, j : j + CHUNK]).sum(dim=1)
    pairs = u.sum(dim=1) * v.sum(dim=1)
    return total / (pairs - (u * u).sum(dim=1) if same else pairs)
