"""Table 5: does a classifier find in the images what was asked for? Source: Dombrowski et al. (AAAI 2024), Table 5."""

import math
from collections.abc import Sequence

import numpy as np

from meddiff.common.findings import FINDINGS
from meddiff.metrics.intervals import area_interval
from meddiff.metrics.statistics import Floats, auroc, mean_of_known, over_seeds
from meddiff.reports.paper import published as paper
from meddiff.reports.paper.cells import MACRO, PRINTED, Cell, Table, number_cell
from meddiff.reports.paper.comparison import class_order
from meddiff.reports.paper.grounding_tables import evaluation_notes, phantom_notes, why_missing
from meddiff.reports.paper.pooling import Model
from meddiff.runs.evaluation_folder import EvaluationFolder
from meddiff.runs.values import number

#: class -> (keys, scores (N), labels (N))
ClassScores = dict[str, tuple[list[str], Floats, Floats]]


def table5(models: Sequence[Model], intervals: bool) -> Table:
    """Does a classifier find in the images what their prompts asked for?"""
    table = Table("table5", "Table 5: classifier AUROC %, class against No Finding")
    found = [
        model for model in models if not model.is_coco and any(one.table("classifier") for one in model.evaluations)
    ]
    if not found:
        table.missing = why_missing(models, 5, "classifier")
        return table
    columns = {f"{model.label}": [_by_class(one, "drawn") for one in model.evaluations] for model in found}
    real = [classes for model in found for one in model.evaluations if (classes := _by_class(one, "real"))][:1]
    sources = {row["source"]: row for row in paper.published(5)}
    heads = [*columns, *(["real images"] if real else [])]
    table.columns = ["class", "n images +", "n images -", *heads, *(f"paper: {name}" for name in sources)]
    measured = [*columns.values(), *([real] if real else [])]
    for name in class_order([*FINDINGS, *(name for runs in measured for run in runs for name in run)]):
        cells = [number_cell(*_spread([_area(run, name) for run in runs]), scale=100.0) for runs in measured]
        table.add(
            (name,), [*_sizes(measured, name), *cells, *(paper.printed(row.get(name)) for row in sources.values())]
        )
    cells = [_average(runs, intervals) for runs in measured]
    recomputed = [math.fsum(float(row[name]) for name in FINDINGS) / len(FINDINGS) for row in sources.values()]
    table.add((MACRO,), [Cell(), Cell(), *cells, *(number_cell(value, 1) for value in recomputed)])
    blank = [Cell() for _ in measured]
    table.add((PRINTED,), [Cell(), Cell(), *blank, *(paper.printed(row["average"]) for row in sources.values())])
    table.notes = [
        "n images + and -: positives and negatives of an evaluation (of each where they differ).",
        "Positives are images of exactly that class, negatives are No Finding; averages are means of the classes (macro).",
        "[low, high] is the 95 % interval of an average over its images, the negatives shared by all classes; there is none "
        "where a class has fewer than ten positives or negatives.",
        *evaluation_notes(found, "classifier"),
        *phantom_notes(found),
        *(model.describe() for model in found),
    ]
    return table


def _by_class(evaluation: EvaluationFolder, source: str) -> ClassScores:
    """Class -> (keys, scores (N), labels (N)) of one source."""
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for row in evaluation.table("classifier"):
        score, label = number(row.get("score")), number(row.get("label"))
        if row.get("source") == source and score is not None and label is not None:
            rows.setdefault(row.get("class", ""), []).append((row.get("key", ""), score, label))
    return {
        name: ([key for key, *_ in found], np.asarray([s for _, s, _ in found]), np.asarray([t for *_, t in found]))
        for name, found in rows.items()
    }


def _area(run: ClassScores, name: str) -> float:
    return float(auroc(run[name][1], run[name][2] > 0)[0]) if name in run else math.nan


def _sizes(measured: Sequence[Sequence[ClassScores]], name: str) -> list[Cell]:
    """Numbers of positives and of negatives of a class; of each evaluation where they differ."""
    labels = [run[name][2] > 0 for runs in measured for run in runs if name in run]
    return [
        Cell("/".join(dict.fromkeys(str(int(part.sum())) for part in parts)))
        for parts in (labels, [~part for part in labels])
    ]


def _spread(values: Sequence[float]) -> tuple[float, int, float]:
    mean, std = over_seeds(values)
    return mean, 1, std


def _average(runs: Sequence[ClassScores], intervals: bool) -> Cell:
    """Mean of the class areas; an image that is a negative of several classes is drawn for all of them at once."""
    filled = [run for run in runs if run]
    if not filled:
        return Cell()
    mean, std = over_seeds([over_seeds([_area(run, name) for name in run])[0] for run in filled])
    rows = [
        (f"{place}|{key}", f"{place}|{name if label > 0 else ''}")
        for place, run in enumerate(filled)
        for name, (keys, _, labels) in run.items()
        for key, label in zip(keys, labels, strict=True)
    ]

    def statistic(weights: Floats) -> Floats:
        areas, start = [], 0
        for run in filled:
            for names, scores, labels in run.values():
                stop = start + len(names)
                areas.append(auroc(scores, labels > 0, weights[:, start:stop]))
                start = stop
        return mean_of_known(np.stack(areas, axis=1))

    if not intervals:
        return number_cell(mean, 1, std, scale=100.0)
    interval = area_interval(statistic, mean, [key for key, _ in rows], [stratum for _, stratum in rows])
    return number_cell(mean, 1, std, interval, 100.0)
