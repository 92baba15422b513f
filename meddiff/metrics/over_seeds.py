"""Do two ways of training differ? Over seeds and images at once, paired, and at equal image quality. No torch.

A figure of an experiment varies for two reasons: another seed trains another model, and other images ask other things
of it. Every seed is measured on the same images, so both are crossed: values are (S, N), a row a seed. What differs
between two ways of training is compared seed by seed and image by image, which takes out how hard an image is and what
a seed brings to both.

**Interval.** At two levels. Images are drawn with replacement (all phrases of one together; one fewer than there are,
as Rao and Wu 1988 do, since with all of them the variance would be too small), and every draw gives the means of all
seeds at once. What these have in common, their covariance between seeds, is what images bring to the mean over seeds.
What seeds bring is their own variance over S, which holds all that differs from seed to seed, chance of the images
included. The sum of both is unbiased, and the interval is t with Satterthwaite's degrees of freedom: S - 1 where seeds
are what varies. Where seeds scatter normally five of them hold the truth in 94 to 95 % and three in 91 to 94 %; where
they are very skewed (exponential), five in 86 %, which is what percentiles of draws of seeds and images do in any case.

**Tests.** The p of the same t; and beside it the exact sign-flip test over seeds, which needs no shape of their
distribution but cannot say less than 2 / 2^S: 0.0625 with five. Source: as named; own code.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.metrics.intervals import LEVEL, NONE
from meddiff.metrics.statistics import Floats, macro_mean, micro_mean, sign_flip_test

#: Fewer seeds than this have no interval. A t of two degrees of freedom is wide, and right where seeds scatter normally.
FEWEST_SEEDS = 3
#: Draws of the bootstrap: the width of an interval is then known to 2 %.
DRAWS = 2000


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds (and images), or a mean difference.

    Attributes:
        mean: over seeds.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end.
        p: two-sided, of the mean being 0, by the t of the interval; NaN where there is none.
        p_seeds: two-sided, exact sign flips of the seeds; at least 2 / 2^S.
        seeds: S, those with a value.
        alike: how many of them have the sign of the mean.
        by_seed: the mean of each seed.
    """

    mean: float
    low: float
    high: float
    p: float
    p_seeds: float
    seeds: int
    alike: int
    by_seed: tuple[float, ...]


def over_seeds(
    values: Floats,
    groups: Sequence[Hashable] | None = None,
    classes: Sequence[Hashable] | None = None,
    address: tuple[object, ...] = (),
) -> OverSeeds:
    """Mean with its interval over seeds and images; of differences between two ways of training, whether they differ.

    Args:
        values: (S, N), one row a seed, NaN where a seed has no value; (S,) of figures that a run has once.
        groups: (N,) image of each sample; None: one sample, whose images nobody knows, and the interval is over seeds alone.
        classes: (N,) class of each sample: the mean is the mean of the class means; None: the mean of the samples.
        address: of the random draws.

    Returns:
        The mean; its interval and p are NaN below :data:`FEWEST_SEEDS` seeds and where nothing varies.

    Example:
        >>> found = over_seeds(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
        >>> found.mean, round(found.low, 3), round(found.high, 3), found.p_seeds
        (3.0, 1.037, 4.963, 0.0625)
    """
    values = np.asarray(values, dtype=float)
    table = values[:, None] if values.ndim == 1 else values
    table = table[np.isfinite(table).any(axis=1)]  # (S, N)
    seeds = len(table)
    if not seeds:
        return OverSeeds(math.nan, *NONE, math.nan, math.nan, 0, 0, ())
    images: Sequence[Hashable] = ["" for _ in range(table.shape[1])] if groups is None else groups
    by_seed = _means(table, classes, None)[0]  # (S,)
    mean = float(by_seed.mean())
    alike = int((np.sign(by_seed) == np.sign(mean)).sum())
    p_seeds = sign_flip_test(by_seed / seeds, range(seeds))
    low, high, p = *NONE, math.nan
    spread = _spread(table, images, classes, by_seed, address) if seeds >= FEWEST_SEEDS else None
    if spread is not None:
        from scipy.stats import t

        variance, freedom = spread
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
        low, high = mean - half, mean + half
        p = float(2 * t.sf(abs(mean) / math.sqrt(variance), freedom))
    return OverSeeds(mean, low, high, p, p_seeds, seeds, alike, tuple(map(float, by_seed)))


def _means(table: Floats, classes: Sequence[Hashable] | None, weights: Floats | None) -> Floats:
    """(D, S): mean of each seed in each draw of images."""
    rows = [table[seed : seed + 1] for seed in range(len(table))]
    means = [micro_mean(row, weights) if classes is None else macro_mean(row, classes, weights) for row in rows]
    return np.stack(means, axis=1)


def _spread(
    table: Floats,
    images: Sequence[Hashable],
    classes: Sequence[Hashable] | None,
    by_seed: Floats,
    address: tuple[object, ...],
) -> tuple[float, float] | None:
    """Variance of the mean over seeds and images, and its degrees of freedom; None where nothing varies."""
    seeds = len(table)
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    _, place = np.unique(np.asarray(images), return_inverse=True)
    many = int(place.max()) + 1
    if many == 1:
        return (of_seeds, seeds - 1.0) if of_seeds > 0 else None
    rng = generator("over seeds and images", *address)
    counts = rng.multinomial(many - 1, np.full(many, 1 / many), DRAWS)  # (D, images)
    drawn = _means(table, classes, counts[:, place].astype(float))  # (D, S)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]  # a draw may miss all images of a seed
    shared = np.cov(drawn, rowvar=False)[~np.eye(seeds, dtype=bool)].mean()
    of_images = max(float(shared), 0.0)
    variance = of_seeds + of_images
    if not variance > 0:
        return None
    return variance, variance**2 / (of_seeds**2 / (seeds - 1) + of_images**2 / (many - 1))


def common_distance(curves: Sequence[Sequence[tuple[float, float]]]) -> float:
    """The smallest distance that every run comes down to; NaN where a run begins below it: the ranges do not overlap.

    Args:
        curves: of each run (distance, score) at each evaluation, in the order of training.

    Example:
        >>> common_distance([[(40, 0), (15, 1)], [(40, 0), (14, 1), (16, 1)]])
        15.0
        >>> common_distance([[(40, 0), (15, 1)], [(12, 0), (10, 1)]])
        nan
    """
    if not curves or not all(curves):
        return math.nan
    reached = max(min(distance for distance, _ in curve) for curve in curves)
    return float(reached) if all(curve[0][0] >= reached for curve in curves) else math.nan


def score_at(curve: Sequence[tuple[float, float]], distance: float) -> float:
    """The score of a run when it first comes down to ``distance``, on a straight line between two evaluations.

    Returns:
        NaN where it never does, or begins below.

    Example:
        >>> score_at([(40, 0.0), (20, 1.0), (10, 0.5), (20, 0.1)], 15)
        0.75
    """
    if not curve or curve[0][0] < distance or not math.isfinite(distance):
        return math.nan
    before = curve[0]
    for at, score in curve:
        if at <= distance:
            share = (before[0] - distance) / (before[0] - at) if before[0] > at else 1.0
            return before[1] + share * (score - before[1])
        before = (at, score)
    return math.nan


def paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> Floats:
    """First minus second, seed by seed and sample by sample; NaN where either has no value."""
    return np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
