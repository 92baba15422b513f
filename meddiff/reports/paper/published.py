"""The paper's own tables, as printed, and their averages of both kinds.

Source: Dombrowski et al. (AAAI 2024), tables 1 to 7; facts only, in ``published/``. Its SDv2 column of CNR is permuted in
print in table 1; the order is that of table 3, with which the printed average agrees (spec/tradeoff.md section 8).
"""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from meddiff.common.csv_rows import csv_records
from meddiff.common.findings import FINDINGS
from meddiff.reports.paper.cells import PRINTED, Cell

FOLDER = Path(__file__).parent / "published"
FILES = {
    1: "table1_grounding",
    2: "table2_mscoco",
    3: "table3_phrase_grounding_cnr",
    4: "table4_fidelity",
    5: "table5_classifier_auroc",
    6: "table6_word_cnr",
    7: "table7_prompt_variability_cnr",
}
AVERAGE = "Average"


@cache
def published(number: int) -> tuple[dict[str, str], ...]:
    """Rows of a published table, as text; an empty cell was not printed (or not legible)."""
    with (FOLDER / f"{FILES[number]}.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(csv_records(stream))


def printed(text: str | None, std: str | None = None, remarks: tuple[tuple[str, str], ...] = ()) -> Cell:
    """A cell that shows a number with the decimals it was printed with."""
    if not text:
        return Cell()
    deviation = (float(std), _decimals(std)) if std else (None, None)
    return Cell(float(text), deviation[0], digits=_decimals(text), std_digits=deviation[1], remarks=remarks)


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


@cache
def counts() -> dict[str, int]:
    """Phrases of each class in MS-CXR as the paper used it (table 1): 1,162 in all."""
    return {row["category"]: int(row["n"]) for row in published(1) if row["category"] != AVERAGE}


def averages(values: Mapping[str, float]) -> tuple[float, float]:
    """Micro and macro average of class values of the paper, by its counts; NaN if a class is missing."""
    if any(name not in values for name in FINDINGS):
        return math.nan, math.nan
    n = counts()
    micro = math.fsum(values[name] * n[name] for name in FINDINGS) / sum(n[name] for name in FINDINGS)
    return micro, math.fsum(values[name] for name in FINDINGS) / len(FINDINGS)


def table1_column(model: str, metric: str) -> dict[str, Cell]:
    """Class -> printed cell of one model and metric (auroc, top1, cnr) of table 1, and the average as printed."""
    rows = [row for row in published(1) if row["model"] == model]
    return {
        PRINTED if row["category"] == AVERAGE else row["category"]: printed(row[metric], row[f"{metric}_std"])
        for row in rows
    }


def table3_column(method: str) -> tuple[dict[str, Cell], str]:
    """Class -> printed CNR of one method of table 3, with its printed average, and how that was taken."""
    row = next(row for row in published(3) if row["method"] == method)
    cells = {name: printed(row[name]) for name in FINDINGS}
    cells[PRINTED] = printed(row["average"], remarks=(("average", row["averaging"]),))
    return cells, row["averaging"]


def table3_methods() -> tuple[str, ...]:
    """Methods of table 3 in its order."""
    return tuple(row["method"] for row in published(3))


def class_values(cells: Mapping[str, Cell]) -> dict[str, float]:
    """The class numbers of a column."""
    return {name: float(cell.value) for name, cell in cells.items() if name in FINDINGS and cell.value is not None}
