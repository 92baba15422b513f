"""95 % intervals that cover what they say also where images are few. No torch: reports read tables and need nothing else.

A sample is one (key, class, phrase); samples of one group (an image, a prompt) are not independent, groups are. A percentile
bootstrap over ten groups covers 85 to 92 % and over one image a class nothing, so a mean gets a t interval: its variance is
that of the groups' residuals, corrected for the leverage of each group (CR2, Bell and McCaffrey 2002, Pustejovsky and Tipton
2018), its degrees of freedom are Satterthwaite's. A share of yes and no gets Wilson's interval with the number of samples that
would have that variance (Korn and Graubard 1998), and so does an area under a curve, by a jackknife. Below five groups (ten
on either side of a curve), or where a class has one image alone, there is none. ``benchmarks/interval_coverage.py`` measures
the coverage. Source: as named; own code.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meddiff.metrics.statistics import Floats, Statistic

NONE = (math.nan, math.nan)
LEVEL = 0.95
#: Fewer groups than this have no interval.
FEWEST = 5
#: Of positives, or of negatives.
FEWEST_OF_A_SIDE = 10
#: Beyond so many groups the degrees of freedom change nothing that is printed.
MANY = 400


def mean_interval(
    values: Floats,
    groups: Sequence[Hashable],
    classes: Sequence[Hashable] | None = None,
    share: bool = False,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Interval of :func:`~meddiff.metrics.statistics.micro_mean`, or of ``macro_mean`` where classes are given.

    Args:
        values: (S, N), one row a seed; NaN where a seed has no value.
        groups: (N,) name of the group of each sample.
        classes: (N,) class of each sample; None: one class.
        share: the values are 0 and 1 (or halves, for ties), and the mean is a share of yes.
        level: chance that the interval covers; a share has one of 95 % only.

    Returns:
        Lower and upper end; NaN below :data:`FEWEST` groups, where a class has its samples from one group alone, and where
        nothing varies (of a share, that is no reason).

    Example:
        >>> [round(end, 3) for end in mean_interval(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), list("abcde"))]
        [1.037, 4.963]
    """
    known = np.isfinite(values).any(axis=0)  # (N,)
    values, names = values[:, known], np.asarray(groups)[known]
    _, place = np.unique(names, return_inverse=True)  # (N,) number of the group
    if not len(place) or place.max() + 1 < FEWEST:
        return NONE
    labels = np.zeros(len(place), np.int64)
    if classes is not None:
        _, labels = np.unique(np.asarray(classes)[known], return_inverse=True)
    loads = [_loads(np.isfinite(row), place, labels) for row in values]
    if any(load is None for load in loads):
        return NONE
    used = [load for load in loads if load is not None]
    centre = sum(float((load.mean * np.nan_to_num(row)).sum()) for load, row in zip(used, values, strict=True)) / len(
        used
    )
    scores = sum(
        (
            np.bincount(place, load.scaled * (np.nan_to_num(row) - _class_means(row, labels)[labels]))
            for load, row in zip(used, values, strict=True)
        ),
        np.zeros(place.max() + 1),
    ) / len(used)  # (G,)
    variance = float((scores**2).sum())
    freedom = _freedom(used[0], place, labels)
    if share:
        return _share_interval(centre, variance, len(place), int(place.max()) + 1, freedom)
    if not variance > 0:
        return NONE
    half = _quantile(freedom, level) * math.sqrt(variance)
    return centre - half, centre + half


class _Load(NamedTuple):
    """How each sample enters a mean, (N,) each: its weight, and its weight corrected for the leverage of its group."""

    mean: Floats
    scaled: Floats


def _loads(known: NDArray[np.bool_], place: NDArray[np.int64], labels: NDArray[np.int64]) -> _Load | None:
    """Of one seed; None where a class with samples has them from one group alone."""
    size = np.bincount(labels, known)  # (C,) samples of each class
    present = size > 0
    cell = place * len(size) + labels
    inside = np.bincount(cell, known)[cell]  # (N,) samples of the same class in the same group
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, 1.0 / size[labels], 0.0) / present.sum()
        leverage = np.where(known, inside / size[labels], 0.0)
    if (leverage >= 1 - 1e-12).any():
        return None
    return _Load(mean, mean / np.sqrt(1 - leverage))


def _class_means(row: Floats, labels: NDArray[np.int64]) -> Floats:
    known = np.isfinite(row)
    with np.errstate(invalid="ignore"):
        means: Floats = np.bincount(labels, np.where(known, row, 0.0)) / np.bincount(labels, known)
    return np.nan_to_num(means)


def _freedom(load: _Load, place: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Satterthwaite's degrees of freedom of the variance, as if samples were independent and alike.

    The variance is a sum of squares ``(B e)_g ** 2``; B takes the class means out and sums over each group.
    """
    groups = int(place.max()) + 1
    if groups > MANY:
        return float(groups - 1)
    weights = np.zeros((groups, len(place)))
    weights[place, np.arange(len(place))] = load.scaled  # (G, N)
    used = load.mean > 0
    for name in np.unique(labels):
        inside = (labels == name) & used
        weights[:, inside] -= weights[:, inside].mean(axis=1, keepdims=True) if inside.any() else 0.0
    gram = weights @ weights.T  # (G, G)
    return float(np.trace(gram) ** 2 / (gram**2).sum())


def area_interval(
    statistic: Statistic, area: float, groups: Sequence[Hashable], strata: Sequence[Hashable]
) -> tuple[float, float]:
    """Interval of an area under a curve, or of a mean of several: Wilson's, with the variance of a jackknife.

    Args:
        statistic: (D, N) weights of samples -> (D,) areas.
        area: the area of all samples.
        groups: (N,) name of the group of each sample; a group is left out as a whole.
        strata: (N,) name of the stratum of each sample: the positives of each class, and the negatives. A group is in one.

    Returns:
        Lower and upper end; NaN where a stratum has fewer than :data:`FEWEST_OF_A_SIDE` groups, or the area is 0 or 1.
    """
    names = np.asarray(groups)
    units, first, place = np.unique(names, return_index=True, return_inverse=True)
    if not 0 < area < 1 or not len(units):
        return NONE
    weights = np.ones((len(units), len(names)))
    weights[place, np.arange(len(names))] = 0.0
    left_out = statistic(weights)  # (G,)
    stratum = np.asarray(strata)[first]
    variance, spread = 0.0, 0.0
    for name in np.unique(stratum):
        some = left_out[stratum == name]
        n = len(some)
        if n < FEWEST_OF_A_SIDE or not np.isfinite(some).all():
            return NONE
        part = (n - 1) / n * float(((some - some.mean()) ** 2).sum())
        variance, spread = variance + part, spread + part**2 / (n - 1)
    if not variance > 0:
        return NONE
    return area_interval_of(area, variance, variance**2 / spread)


def area_interval_of(area: float, variance: float, freedom: float) -> tuple[float, float]:
    """Wilson's interval of an area under a curve, or of a mean of several, whose variance is known from a jackknife.

    Args:
        area: as measured.
        variance: of the area.
        freedom: of the variance.

    Returns:
        Lower and upper end; NaN where the area is 0, 1 or undefined, nothing varies or no freedom is left.

    Example:
        >>> [round(end, 3) for end in area_interval_of(0.5, 0.0025, 1000)]
        [0.404, 0.596]
    """
    if not 0 < area < 1 or not variance > 0 or not freedom > 0:
        return NONE
    return _wilson(area, area * (1 - area) / variance, _quantile(freedom))


def pair_interval(values: Floats, first: Sequence[Hashable], second: Sequence[Hashable]) -> tuple[float, float]:
    """Interval of a mean over pairs of units that occur in several pairs: a jackknife over the units.

    Args:
        values: (N,) finite value of each pair.
        first, second: (N,) the two units of each pair.

    Returns:
        Lower and upper end; NaN for fewer than :data:`FEWEST` units.
    """
    units, place = np.unique(np.asarray([*first, *second]), return_inverse=True)
    n, pairs = len(units), len(values)
    if n < FEWEST or not pairs:
        return NONE
    sums = np.bincount(place, np.concatenate([values, values]), n)
    counts = np.bincount(place, minlength=n)
    if (counts >= pairs).any():
        return NONE
    left_out = (values.sum() - sums) / (pairs - counts)
    variance = (n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum())
    if not variance > 0:
        return NONE
    half, middle = _quantile(n - 1) * math.sqrt(variance), float(values.mean())
    return middle - half, middle + half


def dyad_interval(
    values: Floats, first: Sequence[Hashable], second: Sequence[Hashable], level: float = LEVEL
) -> tuple[float, float]:
    """Interval of a mean of values that belong to two units each, such as a map of one image on the box of another.

    Two values are independent unless they share a unit: the variance is the sum of the products of all residuals that do
    (Fafchamps and Gubert 2007; Aronow, Samii and Assenova 2015), with as many degrees of freedom as there are pairs of units,
    less one. :func:`pair_interval` counts a pair's own variance twice, which matters where a unit is in one or two pairs.

    Args:
        values: (N,) finite.
        first, second: (N,) the two units of each value, in any order.
        level: chance that the interval covers.

    Returns:
        Lower and upper end; NaN for fewer than :data:`FEWEST` pairs of units, and where nothing varies.
    """
    _, place = np.unique(np.asarray([*first, *second]), return_inverse=True)
    ends = np.sort(place.reshape(2, -1), axis=0)  # (2, N), the lower number first
    pairs, which = np.unique(ends, axis=1, return_inverse=True)
    n = pairs.shape[1]
    if n < FEWEST:
        return NONE
    middle = float(values.mean())
    shares = (values - middle) / len(values)
    of_pairs = np.bincount(which.ravel(), shares, n)
    of_units = np.bincount(pairs.ravel(), np.concatenate([of_pairs, of_pairs]))
    own = float((of_pairs**2).sum())
    variance = max(float((of_units**2).sum()) - own, own) * n / (n - 1)
    if not variance > 0:
        return NONE
    half = _quantile(n - 1, level) * math.sqrt(variance)
    return middle - half, middle + half


def _share_interval(share: float, variance: float, samples: int, groups: int, freedom: float) -> tuple[float, float]:
    """Wilson's interval, with as many independent samples as would have this variance; a share of 0 or 1, which has none, has
    as many as there are groups."""
    size = float(groups)
    if variance > 0:
        size = share * (1 - share) / variance * samples / (samples - 1)
        size *= (_quantile(samples - 1) / _quantile(freedom)) ** 2
    return _wilson(share, size, _quantile(math.inf))


def _wilson(share: float, size: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a share of ``size`` independent samples."""
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(max(share * (1 - share), 0.0) / size + z**2 / (4 * size**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _quantile(freedom: float, level: float = LEVEL) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))
