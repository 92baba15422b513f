"""Do two models differ on the same samples? Paired tests below a table. Source: own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from meddiff.common.findings import FINDINGS
from meddiff.metrics.intervals import NONE, mean_interval
from meddiff.metrics.statistics import (
    benjamini_hochberg,
    holm,
    macro_mean,
    micro_mean,
    sign_flip_test,
    wilcoxon_test,
)
from meddiff.reports.paper.cells import MACRO, MICRO, Cell, Table, number_cell
from meddiff.reports.paper.pooling import Model, Samples, Scores

HEADINGS = ("n phrases", "images", "difference", "p", "p Holm", "p BH", "p Wilcoxon", "p Wilcoxon Holm")
NOTES = (
    "p: paired permutation test (signs of the differences are flipped image by image); Wilcoxon: signed ranks of the "
    "differences by image. Holm and Benjamini-Hochberg (BH) correct over the classes of one metric.",
    "The tests speak of these trained models on such samples; how much another training would differ is what the "
    "standard deviation over seeds says.",
)


@dataclass
class Pairs(Samples):
    """Differences between two models on the samples both have, sorted by sample.

    Attributes:
        values: (N), first minus second, each averaged over its seeds.
    """

    values: NDArray[np.float64]


def pair(first: Scores, second: Scores, metric: str) -> Pairs:
    """Differences in ``metric`` on common samples; a sample that one of them has no value for is left out."""
    one, other = (
        dict(zip(scores.samples, _seed_mean(scores.values[metric]), strict=True)) for scores in (first, second)
    )
    samples = [s for s in sorted(one.keys() & other.keys()) if math.isfinite(one[s]) and math.isfinite(other[s])]
    return Pairs(samples, np.asarray([one[s] - other[s] for s in samples], dtype=float))


def _seed_mean(values: NDArray[np.float64]) -> list[float]:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return list((np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)).tolist())


def class_order(names: Sequence[str]) -> list[str]:
    """The paper's classes in its order, then others by name; each once."""
    return [name for name in FINDINGS if name in names] + sorted(set(names) - set(FINDINGS))


def comparison_table(
    name: str,
    models: Sequence[Model],
    scores: Sequence[Scores],
    metrics: Sequence[tuple[str, str, float]],
    intervals: bool,
    wanted: Callable[[Model, Model], bool] = lambda first, second: True,
) -> Table | None:
    """Tests by class of every two models; None if no two have a sample in common.

    Args:
        name: of the table that it stands below.
        metrics: (column, heading, scale) of each metric.
        intervals: whether the average differences get theirs.
        wanted: whether to compare two models.
    """
    table = Table(f"{name}_tests", "Paired tests on the same samples", labels=3)
    table.columns = ["metric", "models", "class", *HEADINGS]
    for (a, first), (b, second) in combinations(enumerate(models), 2):
        if not wanted(first, second):
            continue
        for metric, heading, scale in metrics:
            found = pair(scores[a], scores[b], metric)
            if found.samples:
                _rows(table, found, heading, f"{first.label} - {second.label}", metric, scale, intervals)
    table.notes = list(NOTES)
    return table if table.rows else None


def _rows(table: Table, pairs: Pairs, heading: str, who: str, metric: str, scale: float, intervals: bool) -> None:
    classes, keys = np.asarray(pairs.classes), np.asarray(pairs.keys)
    names = class_order(pairs.classes)
    parts = [np.flatnonzero(classes == name) for name in names]
    address = ("tables", metric)
    flips = [
        sign_flip_test(pairs.values[part] / len(part), keys[part].tolist(), address=(*address, name))
        for name, part in zip(names, parts, strict=True)
    ]
    ranks = [wilcoxon_test(pairs.values[part], keys[part].tolist()) for part in parts]
    columns = zip(names, parts, flips, holm(flips), benjamini_hochberg(flips), ranks, holm(ranks), strict=True)
    for name, part, *p_values in columns:
        mean = number_cell(float(pairs.values[part].mean()), 3, scale=scale)
        table.add((heading, who, name), [*_sizes(keys[part]), mean, *(number_cell(p, 4) for p in p_values)])
    n = len(pairs.values)
    sizes = np.zeros(n)
    for part in parts:
        sizes[part] = len(part)
    values = pairs.values[None]
    # The difference of two shares is no share: it gets the interval of a mean.
    micro = mean_interval(values, pairs.keys) if intervals else NONE
    macro = mean_interval(values, pairs.keys, pairs.classes) if intervals else NONE
    for label, mean_, interval, share, rank in (
        (MICRO, micro_mean(values), micro, pairs.values / n, wilcoxon_test(pairs.values, pairs.keys)),
        (MACRO, macro_mean(values, pairs.classes), macro, pairs.values / sizes / len(names), math.nan),
    ):
        p = sign_flip_test(share, pairs.keys, address=(*address, label))
        cells = [*_sizes(keys), number_cell(float(mean_[0]), 3, interval=interval, scale=scale), number_cell(p, 4)]
        table.add((heading, who, label), [*cells, Cell(), Cell(), number_cell(rank, 4), Cell()])


def _sizes(keys: NDArray[np.str_]) -> list[Cell]:
    return [Cell(len(keys), digits=0), Cell(len(set(keys.tolist())), digits=0)]
