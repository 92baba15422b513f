"""A table as aligned text, Markdown, CSV or LaTeX. Source: own."""

import csv
import io
import textwrap
from collections.abc import Callable, Sequence

from meddiff.common.outside import markdown_cell, terminal
from meddiff.reports.paper.cells import Cell, Table

#: format -> suffix of its file
SUFFIXES = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex"}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "|": r"\textbar{}", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def plain(cell: Cell) -> str:
    """``0.92 ± 0.03 [0.85, 0.97]``; text on one line with its controls spelled out, nothing for an empty cell."""
    if cell.value is None:
        return ""
    if isinstance(cell.value, str):
        return terminal(cell.value)
    text = _number(cell.value, cell.digits)
    if cell.std is not None:
        text += f" ± {_number(cell.std, cell.digits if cell.std_digits is None else cell.std_digits)}"
    if cell.low is not None and cell.high is not None:
        text += f" [{_number(cell.low, cell.digits)}, {_number(cell.high, cell.digits)}]"
    return f"{text} ({', '.join(terminal(remark) for _, remark in cell.remarks)})" if cell.remarks else text


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    if digits >= 4 and value > 0 and not text.strip("0."):  # a p-value is never 0
        return f"<{10**-digits:.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text  # no minus before nought


def as_text(table: Table) -> str:
    """Aligned columns, labels to the left and numbers to the right; notes below."""
    if table.missing:
        return terminal(table.missing) + "\n"
    rows = [[*map(terminal, table.columns)], *([plain(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]

    def line(row: Sequence[str]) -> str:
        cells = (
            c.ljust(w) if i < table.labels else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(row) for row in _thinned(rows[1:], table.labels)]
    notes = [textwrap.fill(terminal(note), max(len(rule), 80), subsequent_indent="  ") for note in table.notes]
    text = "\n".join([terminal(table.title), rule, line(rows[0]), rule, *body, rule, *notes])
    return "\n".join([text, *("\n" + as_text(other).rstrip("\n") for other in table.below)]) + "\n"


def as_markdown(table: Table) -> str:
    """A pipe table; notes as a list."""
    if table.missing:
        return _prose(table.missing) + "\n"

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(row) + " |"

    def cell_text(cell: Cell) -> str:  # the bars of a number are our own
        return markdown_cell(cell.value) if isinstance(cell.value, str) else plain(cell).replace("|", "\\|")

    rule = "|" + "|".join(" --- " if place < table.labels else " ---: " for place in range(len(table.columns))) + "|"
    body = [line([cell_text(cell) for cell in row]) for row in table.rows]
    notes = [f"- {_prose(note)}" for note in table.notes]
    head = line([markdown_cell(column) for column in table.columns])
    text = "\n".join([f"### {_prose(table.title)}", "", head, rule, *body, "", *notes])
    return "\n".join([text, *("\n" + as_markdown(other).rstrip("\n") for other in table.below)]) + "\n"


def _prose(text: str) -> str:
    """A sentence in Markdown: names of runs in it make no HTML, link or picture."""
    return terminal(text).replace("<", "\\<").replace("](", "]\\(")


def as_csv(table: Table) -> str:
    """Full numbers; a column's deviation and interval stand in columns of their own where it has any. No notes."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if table.missing:
        writer.writerow([terminal(table.missing)])
        return stream.getvalue()
    names = [_extra_names([row[place] for row in table.rows]) for place in range(len(table.columns))]
    head = [[column, *(f"{column} {name}" for name in names[place])] for place, column in enumerate(table.columns)]
    writer.writerow([terminal(name) for group in head for name in group])
    for row in table.rows:
        cells = [[cell.value, *(_extras(cell).get(name) for name in names[i])] for i, cell in enumerate(row)]
        writer.writerow([_full(value) for group in cells for value in group])
    return stream.getvalue()


def _extras(cell: Cell) -> dict[str, float | str]:
    """What is known of a cell beside its value."""
    numbers = {"std": cell.std, "low": cell.low, "high": cell.high}
    return {**{name: value for name, value in numbers.items() if value is not None}, **dict(cell.remarks)}


def _extra_names(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in _extras(cell)))


def _full(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else terminal(value)


def as_latex(table: Table) -> str:
    """A booktabs table."""
    if table.missing:
        return f"% {terminal(table.missing)}\n"
    columns = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    rows = _thinned([[plain(cell) for cell in row] for row in table.rows], table.labels)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(table.columns),
        r"\midrule",
        *(_latex_row(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {_escape(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join([*lines, *("\n" + as_latex(other).rstrip("\n") for other in table.below)]) + "\n"


def _latex_row(row: Sequence[str]) -> str:
    # A line that begins with [ would be taken for an argument of the \\ before it.
    return " & ".join(_escape(cell) for cell in row) + r" \\"


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in terminal(text))


def _thinned(rows: Sequence[list[str]], labels: int) -> list[list[str]]:
    """Rows without those leading labels that stand in the row above; the last label always stands."""
    result = []
    for place, row in enumerate(rows):
        same = 0
        while place and same < labels - 1 and row[same] == rows[place - 1][same]:
            same += 1
        result.append([*([""] * same), *row[same:]])
    return result


RENDERERS: dict[str, Callable[[Table], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
}
