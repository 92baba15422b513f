"""What a table is before it is text: cells with their spread and interval, rows, notes. Source: own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: The paper's own models: before fine-tuning, and fine-tuned with the text encoder learnable or frozen.
PAPER_MODELS = ("SDv2", "learnable", "frozen")
MICRO = "Average over samples (micro)"
MACRO = "Average over classes (macro)"
PRINTED = "Average as printed"


@dataclass(frozen=True)
class Cell:
    """One entry: text, or a number with what is known about its uncertainty.

    Attributes:
        value: number or text; None is an empty cell.
        std: standard deviation over seeds.
        low: lower end of the confidence interval.
        high: its upper end.
        digits: decimals.
        std_digits: decimals of the standard deviation; None: as ``digits``.
        remarks: (name, text) of what stands in brackets behind the number; columns of their own in a CSV file.
    """

    value: float | str | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    digits: int = 2
    std_digits: int | None = None
    remarks: tuple[tuple[str, str], ...] = ()


@dataclass
class Table:
    """One table, or why there is none.

    Attributes:
        name: of its files, such as ``table1`` or ``table1_tests``.
        title: what it shows.
        columns: headings; the first ``labels`` of them head text.
        rows: one cell a column.
        notes: sentences below it.
        missing: why it is left out; "" if it is there.
        below: tables that belong to it (tests).
    """

    name: str
    title: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: str = ""
    labels: int = 1
    below: list["Table"] = field(default_factory=list)

    def add(self, labels: Sequence[str], cells: Sequence[Cell]) -> None:
        """Append a row: its labels, then its cells."""
        self.rows.append([*(Cell(text) for text in labels), *cells])


def number_cell(
    value: float,
    digits: int,
    std: float = math.nan,
    interval: tuple[float, float] = (math.nan, math.nan),
    scale: float = 1.0,
) -> Cell:
    """A measured number times ``scale``; what is NaN is left out."""

    def known(x: float) -> float | None:
        return x * scale if math.isfinite(x) else None

    low, high = interval
    return Cell(known(value), known(std), known(low), known(high), digits)
