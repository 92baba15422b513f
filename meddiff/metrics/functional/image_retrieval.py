"""Image retrieval score: how many training images does a generator reach?

Of n generated images each has a nearest training image; k of those are distinct. Were they n draws, all alike, from s training
images, k would have the distribution of the classical occupancy problem; the s of greatest likelihood is the number of images
the generator reaches. Its distribution is computed exactly, by adding one draw after the other. Chest X-rays are not drawn
alike (some are near to everything), so that only the ratio to held-out images of the same n can be read.
Source: Dombrowski et al. 2024 (image retrieval score); the exact distribution own.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.neighbours import CHUNK, nearest

#: Chance of each end of the interval; 90 % together.
TAIL = 0.05


class Reached(NamedTuple):
    """Training images that a set reaches: the estimate, and both ends of its 90 % interval."""

    images: int
    low: int
    high: int


def retrieved(train: Tensor, generated: Tensor, chunk: int = CHUNK) -> int:
    """How many distinct training images (T, D) are the nearest of one of the generated (N, D).

    Raises:
        UserError: as :func:`~meddiff.metrics.functional.neighbours.check_sets`.

    Example:
        >>> import torch
        >>> retrieved(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.1], [-2.0], [9.0]]))
        2
    """
    return len(nearest(generated, train, chunk=chunk)[1].unique())


def occupancy(draws: int, images: int, most: int) -> NDArray[np.float64]:
    """P(0), ..., P(most) of the number of distinct images among ``draws`` uniform draws from ``images``; exact.

    Example:
        >>> occupancy(2, 4, 2).tolist()
        [0.0, 0.25, 0.75]
    """
    known = np.zeros(most + 1)
    known[0] = 1.0
    stay = np.arange(most + 1) / images
    for _ in range(draws):
        moved = np.zeros_like(known)
        moved[1:] = known[:-1] * np.clip(1.0 - stay[:-1], 0.0, None)
        known = known * stay + moved
    return known


def reached(train: int, draws: int, distinct: int) -> Reached:
    """The number of training images that are drawn from, of greatest likelihood, and its interval.

    Args:
        train: number of training images; nothing is estimated beyond it.
        draws: n, number of generated images.
        distinct: k, how many training images are the nearest of one.

    Raises:
        UserError: k is none, more than n, or more than the training images.

    Example:
        >>> reached(100, 100, 50)
        Reached(images=62, low=55, high=73)
    """
    if not 1 <= distinct <= min(train, draws):
        raise UserError(
            f"{distinct} distinct of {train} training images were reached by {draws} images: that cannot be."
        )
    sizes = np.arange(distinct, train + 1)
    from scipy.special import gammaln

    likelihood = gammaln(sizes + 1) - gammaln(sizes - distinct + 1) - draws * np.log(sizes)
    estimate = int(sizes[int(np.argmax(likelihood))])

    def at_most(size: int, count: int) -> float:
        return math.fsum(occupancy(draws, size, count))

    # both tails are monotone in the number of images
    high = _last(distinct, train, lambda size: at_most(size, distinct) >= TAIL)
    low = _first(distinct, train, lambda size: 1.0 - at_most(size, distinct - 1) >= TAIL)
    return Reached(estimate, low, high)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number for which a rising condition holds; ``high`` if none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _last(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The greatest number for which a falling condition holds; ``low`` if none."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
