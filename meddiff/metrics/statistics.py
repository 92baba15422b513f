"""Averages and tests for tables of per-sample scores. No torch: reports read tables and need nothing else.

A sample is one (key, class, phrase). Samples of one image are not independent, so tests take whole groups (images);
intervals are in :mod:`meddiff.metrics.intervals`. Source: own; permutation p-values that count the observed data (Phipson
and Smyth 2010), Holm (1979), Benjamini and Hochberg (1995).
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator

Floats = NDArray[np.float64]
#: (D, N) weights of samples -> (D,) values of a statistic
Statistic = Callable[[Floats], Floats]
#: Signs are made for this many (draw, group) pairs at a time: 32 MB.
BLOCK = 4_000_000
#: Up to so many tied differences their signed ranks are tested exactly, as scipy does.
EXACT = 13


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of the seeds that have a value; NaN where there are too few.

    Example:
        >>> over_seeds([1.0, 3.0]), over_seeds([1.0, float("nan")])
        ((2.0, 1.4142135623730951), (1.0, nan))
    """
    known = [float(value) for value in values if math.isfinite(value)]
    if not known:
        return math.nan, math.nan
    mean = math.fsum(known) / len(known)
    if len(known) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))


def micro_mean(values: Floats, weights: Floats | None = None) -> Floats:
    """Weighted mean over samples, averaged over seeds.

    Args:
        values: (S, N), one row a seed; NaN where a seed has no value.
        weights: (D, N); None weighs all samples alike, D = 1.

    Returns:
        (D,); NaN where a draw has no sample.

    Example:
        >>> micro_mean(np.array([[1.0, 2.0, np.nan]])).item()
        1.5
    """
    known = np.isfinite(values)
    weights = np.ones((1, values.shape[1])) if weights is None else weights
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(known, values, 0.0).T) / (weights @ known.T.astype(float))  # (D, S)
    return mean_of_known(means)


def macro_mean(values: Floats, classes: Sequence[Hashable], weights: Floats | None = None) -> Floats:
    """Mean of the class means (of the classes that have a value); arguments and result as for :func:`micro_mean`.

    Example:
        >>> macro_mean(np.array([[1.0, 3.0, 5.0]]), ["a", "a", "b"]).item()
        3.5
    """
    names, place = np.unique(np.asarray(classes), return_inverse=True)
    parts = [(place == i).nonzero()[0] for i in range(len(names))]
    means = [micro_mean(values[:, part], None if weights is None else weights[:, part]) for part in parts]
    return mean_of_known(np.stack(means, axis=1)) if means else np.full(1, math.nan)


def auroc(scores: Floats, labels: NDArray[np.bool_], weights: Floats | None = None) -> Floats:
    """Area under the ROC curve, ties counted half.

    Args:
        scores: (N,), finite.
        labels: (N,), true for positives.
        weights: (D, N); None weighs all samples alike, D = 1.

    Returns:
        (D,); NaN where a draw has no positives or no negatives.

    Example:
        >>> auroc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])).item()
        0.875
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    if not len(scores):
        return np.full(len(weights), math.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each group of equal scores
    positive, negative = (
        np.add.reduceat(np.where(chosen, weights, 0.0)[:, order], starts, axis=1) for chosen in (labels, ~labels)
    )
    below = np.cumsum(negative, axis=1) - 0.5 * negative
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: Floats = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return areas


def sign_flip_test(
    contributions: Floats, groups: Sequence[Hashable], draws: int = 9999, address: tuple[object, ...] = ()
) -> float:
    """Two-sided paired permutation test: p of a mean difference when the two models of a pair could be swapped.

    All 2^G sign patterns are tried where there are at most ``draws`` of them; else they are drawn.

    Args:
        contributions: (N,) share of each sample in the mean difference: difference / N for a mean over samples,
            difference / (class size x number of classes) for a mean of class means.
        groups: (N,) image of each sample: the maps of one image are swapped together.
        draws: number of random sign patterns.
        address: of the random draws.

    Returns:
        p in (0, 1]; NaN without samples.

    Example:
        >>> sign_flip_test(np.array([1.0, 1.0, 1.0, 1.0]) / 4, list("abcd"))
        0.125
    """
    sums = np.asarray([contributions[part].sum() for part in _places(groups)])
    n = len(sums)
    if not n:
        return math.nan
    # Sums of the same numbers in another order differ by rounding: what is equal must count as equal.
    least = abs(float(sums.sum())) - 1e-12 * float(np.abs(sums).sum())
    if n < 63 and 2**n <= draws:
        patterns = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float((np.abs((1 - 2 * patterns) @ sums) >= least).mean())
    rng = generator("sign flips", *address)
    block, beyond = max(1, BLOCK // n), 0
    for start in range(0, draws, block):
        signs = 2.0 * rng.integers(2, size=(min(block, draws - start), n)) - 1.0
        beyond += int((np.abs(signs @ sums) >= least).sum())
    return (beyond + 1) / (draws + 1)


def wilcoxon_test(differences: Floats, groups: Sequence[Hashable]) -> float:
    """Two-sided Wilcoxon signed-rank test on the mean difference of each group; zero differences are left out.

    Returns:
        p in (0, 1]; 1 if no group differs, NaN without samples.
    """
    means = np.asarray([differences[part].mean() for part in _places(groups)])
    if not len(means):
        return math.nan
    means = means[means != 0]
    if not len(means):
        return 1.0
    from scipy.stats import rankdata, wilcoxon

    ranks = rankdata(np.abs(means))
    if len(means) <= EXACT and len(np.unique(ranks)) < len(ranks):
        # scipy goes through the same sign patterns one by one, which takes seconds.
        return sign_flip_test(np.sign(means) * ranks, range(len(ranks)), draws=2**EXACT)
    return float(wilcoxon(means).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the chance of any false alarm among the tests is at most the level; NaN stays NaN.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [math.nan] * len(p_values), 0.0
    order = _rising(p_values)
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values: bounds the expected share of false alarms; NaN stays NaN.

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03])
        [0.03, 0.04, 0.04]
    """
    adjusted, smallest = [math.nan] * len(p_values), 1.0
    order = _rising(p_values)
    for rank in range(len(order), 0, -1):
        smallest = min(smallest, p_values[order[rank - 1]] * len(order) / rank)
        adjusted[order[rank - 1]] = smallest
    return adjusted


def _rising(p_values: Sequence[float]) -> list[int]:
    return sorted((i for i, p in enumerate(p_values) if math.isfinite(p)), key=lambda i: p_values[i])


def _places(names: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """Where each name stands, name by name."""
    if not len(names):
        return []
    _, place = np.unique(np.asarray(names), return_inverse=True)
    order = np.argsort(place, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(place[order])) + 1)


def mean_of_known(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1)
    return result
