"""What a linear reader finds in latents: the latent AUROC, or accuracy, by cross-validated logistic regression.

Protocol of InfoDiffusion as Patronus uses it (spec/patronus_and_visual_analysis.md, A8): the first 10,000 rows, 5 folds
(shuffled, seed 0), standardised on the training folds, logistic regression, the mean over attributes of the AUROC on the test
fold. Own: unknown labels are left out, rows of one patient stay in one fold where groups are given, and every figure has its
interval, of Wilson's form (:mod:`meddiff.metrics.intervals`). Its variance is that of a jackknife which leaves out one group of
a test fold after the other, times 1 + folds / (folds - 1) since the probes share rows to learn from (Nadeau and Bengio 2003):
without that factor it covered 0.5 in 83 % of 200 sets of random labels.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double
from meddiff.metrics.intervals import FEWEST_OF_A_SIDE, NONE, area_interval_of
from meddiff.metrics.statistics import Floats, mean_of_known

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Bools = NDArray[np.bool_]
Places = NDArray[np.int64]
ROWS, FOLDS, SEED = 10_000, 5, 0
#: L-BFGS stops long before, on standardised activations.
ITERATIONS = 2_000


class Figure(NamedTuple):
    """A figure with its 95 % interval; NaN where it is undefined.

    Attributes:
        value: mean over the folds.
        low, high: of the interval.
    """

    value: float
    low: float
    high: float


class LatentAuroc(NamedTuple):
    """What the probe found.

    Attributes:
        mean: of the attributes that have a value.
        attributes: (A) one by one, in the order of the columns.
        rows: rows that were used.
    """

    mean: Figure
    attributes: tuple[Figure, ...]
    rows: int


def folds_of(groups: Sequence[object] | None, rows: int, folds: int = FOLDS, seed: int = SEED) -> Places:
    """The test fold (N,) of every row: scikit-learn's shuffled ``KFold`` over rows, or over groups in order of appearance.

    Raises:
        UserError: fewer rows or groups than folds.

    Example:
        >>> folds_of(["a", "a", "b", "c"], 4, folds=3).tolist()
        [2, 2, 1, 0]
    """
    place = np.arange(rows) if groups is None else _numbers(groups)
    units = int(place.max()) + 1 if rows else 0
    if units < folds:
        raise UserError(f"{units} rows or groups cannot be shared among {folds} folds: measure on more images.")
    from sklearn.model_selection import KFold

    found = np.empty(units, np.int64)
    for number, (_, test) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(np.zeros((units, 1)))):
        found[test] = number
    return found[place]


def latent_auroc(
    activations: Tensor,
    labels: Tensor,
    groups: Sequence[object] | None = None,
    rows: int = ROWS,
    folds: int = FOLDS,
    seed: int = SEED,
) -> LatentAuroc:
    """Cross-validated AUROC of a logistic regression on standardised activations, attribute by attribute.

    Args:
        activations: (N, m), finite.
        labels: (N, A), 0 or 1, or NaN where it is unknown (that row is left out for that attribute).
        groups: (N,) such as patients, no one of which is in two folds; None: every row is its own, as published.
        rows: the first so many are used.
        folds: of the cross-validation.
        seed: of the shuffle.

    Returns:
        Figures; of an attribute NaN where a fold has not both kinds to learn from, or no fold has both to be tested on, and
        without an interval where it has fewer than ten groups of either kind.

    Raises:
        UserError: shapes that do not fit, activations that are not finite, labels other than 0, 1 and NaN, or fewer groups
            than folds.

    Example:
        >>> import torch
        >>> s = torch.linspace(-1, 1, 40)[:, None]
        >>> round(latent_auroc(s, (s > 0).float()).attributes[0].value, 2)
        1.0
    """
    values, known, targets = checked(activations, labels, rows)
    place = np.arange(len(values)) if groups is None else _numbers(groups[: len(values)])
    fold = folds_of(None if groups is None else groups[: len(values)], len(values), folds, seed)
    found = [_probe(values, known[:, a], targets[:, a], place, fold, folds) for a in range(targets.shape[1])]
    means = np.asarray([area for area, _ in found])
    moves = [moved for area, moved in found if math.isfinite(area)]
    enough = [_enough(known[:, a], targets[:, a], place) for a in range(targets.shape[1])]
    attributes = tuple(
        Figure(area, *(_interval(area, moved, folds) if fine else NONE))
        for (area, moved), fine in zip(found, enough, strict=True)
    )
    mean = float(mean_of_known(means)) if len(means) else math.nan
    whole = bool(moves) and all(fine for fine, (area, _) in zip(enough, found, strict=True) if math.isfinite(area))
    interval = _interval(mean, np.mean(moves, axis=0), folds) if whole else NONE
    return LatentAuroc(Figure(mean, *interval), attributes, len(values))


def latent_accuracy(
    activations: Tensor,
    classes: Tensor,
    groups: Sequence[object] | None = None,
    rows: int = ROWS,
    folds: int = FOLDS,
    seed: int = SEED,
) -> Figure:
    """Share of rows whose class a multinomial logistic regression on standardised activations tells, on the test folds.

    Args:
        activations: (N, m), finite.
        classes: (N,) whole numbers.
        groups, rows, folds, seed: as for :func:`latent_auroc`.

    Raises:
        UserError: as :func:`latent_auroc`; or only one class to learn from.

    Example:
        >>> import torch
        >>> latent_accuracy(torch.arange(30.0)[:, None], (torch.arange(30) >= 15).long()).value > 0.9
        True
    """
    values, _, targets = checked(activations, classes.double()[:, None], rows, binary=False)
    answers, units = targets[:, 0], _numbers(list(range(len(values))) if groups is None else groups[: len(values)])
    fold = folds_of(None if groups is None else groups[: len(values)], len(values), folds, seed)
    right = np.zeros(len(values))
    for number in range(folds):
        test = fold == number
        if len(np.unique(answers[~test])) < 2:
            raise UserError("all rows to learn from are of one class; a probe needs two: measure on more images.")
        learn, asked = _standardised(values[~test], values[test])
        right[test] = _regression().fit(learn, answers[~test]).predict(asked) == answers[test]
    share, count = float(right.mean()), int(units.max()) + 1
    moves = math.sqrt(count / (count - 1)) * np.bincount(units, right - share) / len(right)  # (G,)
    return Figure(share, *_interval(share, moves, folds))


class _Tested(NamedTuple):
    """Of one attribute: its AUROC, and by how much each group (G,) moves it, so that the variance is the sum of squares."""

    area: float
    moves: Floats


def _probe(values: Floats, known: Bools, answers: Floats, place: Places, fold: Places, folds: int) -> _Tested:
    """Fit on all folds but one and test on that one, fold by fold, for one attribute."""
    areas, moves = [], np.zeros(int(place.max()) + 1)
    for number in range(folds):
        learn, test = known & (fold != number), known & (fold == number)
        if len(np.unique(answers[learn])) < 2:
            return _Tested(math.nan, moves)
        if len(np.unique(answers[test])) < 2:
            continue  # nothing to order in this fold
        before, after = _standardised(values[learn], values[test])
        scores = _regression().fit(before, answers[learn]).decision_function(after)
        area, moved = _left_out(scores, answers[test] > 0, place[test], len(moves))
        areas.append(area)
        moves += moved
    return _Tested(math.fsum(areas) / len(areas), moves / len(areas)) if areas else _Tested(math.nan, moves)


def _left_out(scores: Floats, positive: Bools, place: Places, groups: int) -> tuple[float, Floats]:
    """An AUROC, and the scaled deviations (G,) of what it would be without each group: a jackknife from one sort."""
    high, low = scores[positive], scores[~positive]
    won = np.empty(len(scores))  # (n,) pairs in the right order that a row is in, ties as halves
    for chosen, own, other in ((positive, high, np.sort(low)), (~positive, low, np.sort(high))):
        below = (np.searchsorted(other, own) + np.searchsorted(other, own, side="right")) / 2
        won[chosen] = below if chosen is positive else len(other) - below
    lost, ups, downs = (np.bincount(place, one, groups) for one in (won, positive, ~positive))  # (G,) each
    for g in np.flatnonzero((ups > 0) & (downs > 0)):  # pairs inside one group were taken away twice
        inside = place == g
        own, other = scores[inside & positive], scores[inside & ~positive]
        lost[g] -= ((own[:, None] > other) + 0.5 * (own[:, None] == other)).sum()
    total = float(won[positive].sum())
    there = ups + downs > 0
    pairs = (len(high) - ups) * (len(low) - downs)
    areas = np.divide(total - lost, pairs, out=np.full(groups, math.nan), where=there & (pairs > 0))
    moves, n = np.zeros(groups), int(there.sum())
    moves[there] = math.sqrt((n - 1) / n) * (areas[there] - areas[there].mean())
    return total / (len(high) * len(low)), moves


def _interval(value: float, moves: Floats, folds: int) -> tuple[float, float]:
    shared = 1 + folds / (folds - 1)
    return area_interval_of(value, shared * float((moves**2).sum()), int((moves != 0).sum()) - folds)


def _enough(known: Bools, answers: Floats, place: Places) -> bool:
    return all(len(np.unique(place[known & (answers == side)])) >= FEWEST_OF_A_SIDE for side in (0, 1))


def _standardised(learn: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Both by mean and deviation of the rows to learn from; what does not vary there says nothing and becomes zero."""
    mean, spread = learn.mean(axis=0), learn.std(axis=0)
    scale = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, np.inf)
    return (learn - mean) / scale, (test - mean) / scale


def _regression() -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=ITERATIONS)


def _numbers(groups: Sequence[object]) -> Places:
    """(N,) number of each row's group, in order of appearance: shuffled as scikit-learn shuffles rows."""
    seen: dict[object, int] = {}
    return np.asarray([seen.setdefault(name, len(seen)) for name in groups], np.int64)


def checked(activations: Tensor, labels: Tensor, rows: int, binary: bool = True) -> tuple[Floats, Bools, Floats]:
    """The first rows as float64: activations (n, m), where labels are known (n, A), labels (n, A).

    Raises:
        UserError: as :func:`latent_auroc`.
    """
    if activations.ndim != 2 or labels.ndim != 2 or len(activations) != len(labels):
        raise UserError(
            f"activations and labels have the shapes {tuple(activations.shape)} and {tuple(labels.shape)}; (N, m) and "
            "(N, A) are expected."
        )
    values, targets = as_double(activations[:rows]).cpu().numpy(), as_double(labels[:rows]).cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError("activations are not finite: the encoder has diverged, so there is nothing to probe.")
    known = ~np.isnan(targets)
    if binary and not np.isin(targets[known], (0, 1)).all():
        raise UserError("labels are other than 0, 1 and NaN (unknown): make them binary first.")
    return values, known, targets
