"""Table 6: which words point best. Source: Dombrowski et al. (AAAI 2024), Table 6; spec/tradeoff.md section 6."""

import math
from collections.abc import Sequence
from dataclasses import replace

from meddiff.common.findings import FINDINGS
from meddiff.metrics.statistics import over_seeds
from meddiff.reports.paper import published as paper
from meddiff.reports.paper.cells import PAPER_MODELS, Cell, Table, number_cell
from meddiff.reports.paper.comparison import class_order
from meddiff.reports.paper.grounding_tables import evaluation_notes, phantom_notes, why_missing
from meddiff.reports.paper.pooling import Model
from meddiff.runs.evaluation_folder import EvaluationFolder
from meddiff.runs.names import SPECIAL_TOKENS
from meddiff.runs.values import number

TOP = 3
#: (class, word) -> (occurrences, mean CNR), of one evaluation
Means = dict[tuple[str, str], tuple[int, float]]
#: (class, word) -> (occurrences, mean CNR, its standard deviation), over the seeds of a model
Words = dict[tuple[str, str], tuple[float, float, float]]


def word_means(evaluation: EvaluationFolder, variant: str) -> Means:
    """Occurrences with a defined CNR, and its mean, of every word of a class.

    Args:
        variant: "first" (first piece of a word, as the paper) or "all"; start and end token have one piece.
    """
    rows = [row for row in evaluation.table("words") if number(row.get("cnr")) is not None]
    # They may be written under one of the variants only.
    special = (
        "first" if all(row.get("variant") == "first" for row in rows if row.get("word") in SPECIAL_TOKENS) else "all"
    )
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        wanted = special if row.get("word") in SPECIAL_TOKENS else variant
        if row.get("variant") == wanted:
            found.setdefault((row.get("class", ""), row.get("word", "")), []).append(float(row["cnr"]))
    return {place: (len(values), math.fsum(values) / len(values)) for place, values in found.items()}


def pooled(model: Model, variant: str) -> Words:
    """Every word of a model: its occurrences are a mean over seeds, as its CNR."""
    runs = [found for one in model.evaluations if (found := word_means(one, variant))]
    result: Words = {}
    for place in {place for run in runs for place in run}:
        there = [run[place] for run in runs if place in run]
        mean, std = over_seeds([cnr for _, cnr in there])
        result[place] = (math.fsum(n for n, _ in there) / len(there), mean, std)
    return result


def table6(models: Sequence[Model], min_occurrences: int) -> Table:
    """The words of each class with the highest CNR, start and end token among them, then these two by themselves.

    Args:
        min_occurrences: a word must occur more often than this.
    """
    table = Table("table6", f"Table 6: the {TOP} words of each class with the highest CNR", labels=3)
    found = [model for model in models if not model.is_coco and any(one.table("words") for one in model.evaluations)]
    if not found:
        table.missing = why_missing(models, 6, "words")
        return table
    heads = [*(model.label for model in found), *(f"paper: {name}" for name in PAPER_MODELS)]
    table.columns = ["pieces", "class", "rank", *heads]
    for variant in ("first", "all"):
        words = [pooled(model, variant) for model in found]
        names = class_order([*FINDINGS, *(name for one in words for name, _ in one)])
        for name in names:
            ranked = [_ranked(one, name, min_occurrences) for one in words]
            for rank in range(TOP):
                best = [cells[rank] if rank < len(cells) else Cell() for cells in ranked]
                _add(table, (variant, name, str(rank + 1)), [*best, *_printed(variant, name, "rank", str(rank + 1))])
            for token in SPECIAL_TOKENS:
                cells = [_cell(token, one[name, token]) if (name, token) in one else Cell() for one in words]
                _add(table, (variant, name, token), [*cells, *_printed(variant, name, "word", token)])
    table.notes = [
        f"Words that occur more than {min_occurrences} times, as written. Pieces: a word's map is that of its first piece "
        "(as in the paper) or of all of its pieces; SOS and EOS (CLS and SEP of a BERT) have one.",
        "The paper printed the best three only: its SOS and EOS are known where they are among them.",
    ]
    thin = [name for name in FINDINGS if not any(_ranked(one, name, min_occurrences) for one in words)]
    if thin:
        table.notes.append(
            f"No word occurs more than {min_occurrences} times in {', '.join(thin)}: lower --min_occurrences."
        )
    table.notes += evaluation_notes(found, "grounding") + phantom_notes(found) + [model.describe() for model in found]
    return table


def _add(table: Table, labels: Sequence[str], cells: Sequence[Cell]) -> None:
    """A row, unless nothing was measured or printed there."""
    if any(cell.value is not None for cell in cells):
        table.add(labels, cells)


def _ranked(words: Words, name: str, least: int) -> list[Cell]:
    """The words of a class that are frequent enough, highest CNR first (equal ones by name)."""
    mine = [(word, found) for (label, word), found in words.items() if label == name and found[0] > least]
    return [_cell(*one) for one in sorted(mine, key=lambda one: (-one[1][1], one[0]))]


def _cell(word: str, found: tuple[float, float, float]) -> Cell:
    n, cnr, std = found
    return replace(number_cell(cnr, 2, std), remarks=(("word", word), ("n", f"{n:g}")))


def _printed(variant: str, name: str, column: str, value: str) -> list[Cell]:
    """The paper's word of a class by rank or by name; it took first pieces only."""
    cells = dict.fromkeys(PAPER_MODELS, Cell())
    for row in paper.published(6) if variant == "first" else ():
        if row["category"] == name and row[column] == value:
            remarks = (("word", row["word"]), ("n", row["occurrences"]))
            cells[row["model"]] = paper.printed(row["cnr"], remarks=remarks)
    return list(cells.values())
