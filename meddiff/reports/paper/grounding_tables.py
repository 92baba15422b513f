"""Tables 1, 3 and 7: where the words point. Source: Dombrowski et al. (AAAI 2024); spec/tradeoff.md sections 6 and 8."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meddiff.common.findings import FINDINGS
from meddiff.metrics.intervals import mean_interval
from meddiff.metrics.statistics import macro_mean, micro_mean, over_seeds
from meddiff.reports.paper import published as paper
from meddiff.reports.paper.cells import MACRO, MICRO, PAPER_MODELS, PRINTED, Cell, Table, number_cell
from meddiff.reports.paper.comparison import class_order, comparison_table
from meddiff.reports.paper.pooling import Model, Scores, scores_of
from meddiff.runs.values import nested

#: (column, heading, factor, decimals)
Metric = tuple[str, str, float, int]
CNR: Metric = ("cnr", "CNR", 1.0, 3)
TABLE1: tuple[Metric, ...] = (("auroc", "AUROC %", 100.0, 1), ("top1", "Top-1 (pointing game) %", 100.0, 1), CNR)
#: Metrics that are yes or no of a sample.
SHARES = ("top1",)
TEXTS = ("impression", "synthetic", "label")
INTERVALS = (
    "[low, high] is the 95 % interval over images (the samples of one image count together; of Top-1, a share of yes, "
    "Wilson's); there is none below five images, or where a class has one alone."
)
LIKE_WITH_LIKE = (
    "Compare micro with micro and macro with macro: the paper printed micro averages of its own models and macro "
    "averages of ConVIRT, GLoRIA and BioViL-L. Both are recomputed here from its class values and counts."
)


@dataclass
class Averages:
    """Micro and macro average of one metric of one model, with or without their intervals."""

    scores: Scores
    metric: str
    intervals: bool

    def cell(self, kind: str, scale: float, digits: int) -> Cell:
        """Mean and standard deviation over seeds, and the interval over samples, of the MICRO or MACRO average."""
        values, classes = self.scores.values[self.metric], self.scores.classes
        if not classes:
            return Cell()
        by_class = None if kind == MICRO else classes
        means = [micro_mean(row[None]) if by_class is None else macro_mean(row[None], by_class) for row in values]
        mean, std = over_seeds([float(one[0]) for one in means])
        if not self.intervals:
            return number_cell(mean, digits, std, scale=scale)
        interval = mean_interval(values, self.scores.keys, by_class, share=self.metric in SHARES)
        return number_cell(mean, digits, std, interval, scale)


def class_cell(scores: Scores, metric: str, name: str, scale: float, digits: int) -> Cell:
    """Mean of a class, with its standard deviation over seeds."""
    inside = np.asarray([label == name for label in scores.classes], dtype=bool)
    if not inside.any():
        return Cell()
    mean, std = over_seeds([float(micro_mean(row[None, inside])[0]) for row in scores.values[metric]])
    return number_cell(mean, digits, std, scale=scale)


def sizes_cell(sizes: Sequence[int]) -> Cell:
    """The number of samples; of each model where it differs."""
    return Cell("/".join(str(n) for n in (sizes if len(set(sizes)) > 1 else sizes[:1])))


def paper_averages(cells: Mapping[str, Cell], digits: int) -> dict[str, Cell]:
    """The printed column with both averages recomputed from its classes."""
    micro, macro = paper.averages(paper.class_values(cells))
    return {**cells, MICRO: number_cell(micro, digits), MACRO: number_cell(macro, digits)}


def class_rows(
    table: Table,
    labels: Sequence[str],
    metric: Metric,
    scores: Sequence[Scores],
    columns: Sequence[Mapping[str, Cell]],
    intervals: bool,
) -> None:
    """A block of rows: every class, then both averages, then the average as printed."""
    name, _, scale, digits = metric
    measured = [Averages(one, name, intervals) for one in scores]
    names = class_order([*FINDINGS, *(label for one in scores for label in one.classes)])
    for label in names:
        cells = [class_cell(one, name, label, scale, min(digits, 2)) for one in scores]
        sizes = [sizes_cell([one.classes.count(label) for one in scores]), Cell(paper.counts().get(label), digits=0)]
        table.add((*labels, label), [*sizes, *cells, *(column.get(label, Cell()) for column in columns)])
    for kind in (MICRO, MACRO):
        cells = [one.cell(kind, scale, digits) for one in measured]
        sizes = [sizes_cell([len(one.samples) for one in scores]), Cell(sum(paper.counts().values()), digits=0)]
        table.add((*labels, kind), [*sizes, *cells, *(column.get(kind, Cell()) for column in columns)])
    blank = [Cell() for _ in range(2 + len(scores))]
    table.add((*labels, PRINTED), [*blank, *(column.get(PRINTED, Cell()) for column in columns)])


def common_notes(models: Sequence[Model], scores: Sequence[Scores], intervals: bool) -> list[str]:
    """What the numbers of a grounding table are, which samples they lack, and on what they were measured."""
    notes = [LIKE_WITH_LIKE]
    spread = "± is the standard deviation over seeds; " if any(len(m.evaluations) > 1 for m in models) else ""
    if intervals:
        notes.append(f"{spread}{INTERVALS}")
    for model, one in zip(models, scores, strict=True):
        missing = [name for name in FINDINGS if name not in one.classes]
        if missing:
            notes.append(f"{model.label}: no sample of {', '.join(missing)}; its averages are over the others.")
        if one.left_out:
            notes.append(f"{model.label}: samples without a defined CNR, in no column: {one.left_out}.")
    notes += evaluation_notes(models, "grounding")
    return [*notes, *phantom_notes(models), *(model.describe() for model in models)]


def phantom_notes(models: Sequence[Model]) -> list[str]:
    """Rendered images are not the paper's."""
    if not any(str(model.about.get("cohort", "")).startswith("phantom") for model in models):
        return []
    return ["Measured on phantoms, the paper on MIMIC-CXR and MS-CXR: what compares is the direction, not the value."]


def evaluation_notes(models: Sequence[Model], part: str) -> list[str]:
    """Settings of an evaluation part in which the models differ."""
    found = [nested(one.about, "parts", part) for model in models for one in model.evaluations]
    settings = [one if isinstance(one, dict) else {} for one in found]
    names = sorted({name for one in settings for name in one})
    differing = [name for name in names if len({repr(one.get(name)) for one in settings}) > 1]
    if not differing:
        return []
    return [f"The evaluations differ in their settings ({', '.join(differing)}): the columns compare only in part."]


def _measured(models: Sequence[Model], metrics: Sequence[str], table: str = "grounding") -> list[tuple[Model, Scores]]:
    found = []
    for model in models:
        tables = [one.table(table) for one in model.evaluations]
        if any(tables) and not model.is_coco:
            found.append((model, scores_of(tables, metrics)))
    return found


def why_missing(models: Sequence[Model], number: int, part: str) -> str:
    """The line that stands for a table of chest X-rays that cannot be made."""
    if models and all(model.is_coco for model in models):
        return f"Table {number} needs a chest cohort; these runs were evaluated on MS-COCO."
    run = models[0].about.get("run", "RUN") if models else "RUN"
    return f"Table {number} needs {part}: `lightning evaluate {part} --run {run}`."


def table1(models: Sequence[Model], intervals: bool) -> Table:
    """Grounding: AUROC, Top-1 and CNR of each class."""
    table = Table("table1", "Table 1: phrase grounding by cross-attention", labels=2)
    found = _measured(models, [name for name, *_ in TABLE1])
    if not found:
        table.missing = why_missing(models, 1, "grounding")
        return table
    shown, scores = [m for m, _ in found], [s for _, s in found]
    heads = [*(model.label for model in shown), *(f"paper: {name}" for name in PAPER_MODELS)]
    table.columns = ["metric", "class", "n phrases", "n phrases, paper", *heads]
    for metric in TABLE1:
        columns = [paper_averages(paper.table1_column(name, metric[0]), metric[3]) for name in PAPER_MODELS]
        class_rows(table, [metric[1]], metric, scores, columns, intervals)
    table.notes = [
        "The paper's table 1 permutes SDv2's CNR of some classes; it stands here in the order of its table 3."
    ]
    table.notes += common_notes(shown, scores, intervals)
    tests = comparison_table(
        "table1", shown, scores, [(name, head, scale) for name, head, scale, _ in TABLE1], intervals
    )
    table.below = [tests] if tests else []
    return table


def table3(models: Sequence[Model], intervals: bool) -> Table:
    """CNR of each class beside ConVIRT, GLoRIA and BioViL-L."""
    table = Table("table3", "Table 3: phrase grounding (CNR) beside weakly supervised methods")
    found = _measured(models, [CNR[0]])
    if not found:
        table.missing = why_missing(models, 3, "grounding")
        return table
    shown, scores = [m for m, _ in found], [s for _, s in found]
    methods = paper.table3_methods()
    columns = [paper_averages(paper.table3_column(method)[0], CNR[3]) for method in methods]
    table.columns = [
        "class",
        "n phrases",
        "n phrases, paper",
        *(m.label for m in shown),
        *(f"paper: {method}" for method in methods),
    ]
    class_rows(table, [], CNR, scores, columns, intervals)
    table.notes = common_notes(shown, scores, intervals)
    tests = comparison_table("table3", shown, scores, [CNR[:3]], intervals)
    table.below = [tests] if tests else []
    return table


def table7(models: Sequence[Model], intervals: bool) -> Table:
    """CNR of models trained on impressions, synthetic impressions and labels, measured on impressions."""
    table = Table(
        "table7", "Table 7: CNR by the texts of training, measured on impressions that name the class", labels=3
    )
    trained = [model for model in models if model.images]
    found = _measured(trained, [CNR[0]], "impressions")
    on_phrases = not found
    if on_phrases:
        found = _measured(trained, [CNR[0]])
    if not found:
        table.missing = why_missing(models, 7, "grounding") if trained else "Table 7 needs a trained model."
        return table
    columns: dict[str, dict[str, Scores]] = {}
    for side in ("learnable", "frozen"):
        of_side = [(model, scores) for model, scores in found if model.side == side]
        alone = len({model.prompt for model, _ in of_side}) == len(of_side)
        for model, one in of_side:
            columns.setdefault(side if alone else model.label, {})[model.prompt] = one
    variability = {row["text"]: row["variability"] for row in paper.published(7)}
    table.columns = ["trained on", "variability", "average", "n phrases", *columns, "paper: learnable", "paper: frozen"]
    for text in TEXTS:
        row = next(row for row in paper.published(7) if row["text"] == text)
        for kind in (MICRO, MACRO):
            measured = [
                Averages(by[text], "cnr", intervals).cell(kind, 1.0, 3) if text in by else Cell()
                for by in columns.values()
            ]
            n = [len(by[text].samples) for by in columns.values() if text in by]
            printed = [paper.printed(row[side]) if kind == MICRO else Cell() for side in ("learnable", "frozen")]
            table.add((text, variability[text], kind), [sizes_cell(n), *measured, *printed])
    absent = [text for text in TEXTS if not any(text in by for by in columns.values())]
    if absent:
        table.notes.append(f"No run trained on {' or '.join(absent)} texts (`lightning fit --data.prompt`) was given.")
    if on_phrases:
        table.notes.append("No impressions.csv: measured on the phrases of table 1; evaluate grounding again.")
    table.notes.append(
        "The paper printed micro averages over those MS-CXR impressions that name the class; it printed no class values."
    )
    shown, scores = [m for m, _ in found], [s for _, s in found]
    table.notes += common_notes(shown, scores, intervals)[1:]
    tests = comparison_table("table7", shown, scores, [CNR[:3]], intervals, _one_thing_differs)
    table.below = [tests] if tests else []
    return table


def _one_thing_differs(first: Model, second: Model) -> bool:
    return (first.side == second.side) != (first.prompt == second.prompt)
