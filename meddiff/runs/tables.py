"""Small tables and controls of a run folder, written whole or not at all. Source: own."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from meddiff.common.csv_rows import csv_records
from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.common.locks import locked
from meddiff.common.text_files import read_text
from meddiff.runs.earlier_names import current_controls, current_names
from meddiff.runs.names import CONTROLS
from meddiff.runs.records import read_record


def write_table(
    path: Path, rows: Sequence[Mapping[str, object]], first: Sequence[str] = (), only: bool = False
) -> None:
    """Write ``rows``; an absent or undefined value is an empty cell.

    Args:
        first: columns that come first, also when no row has them.
        only: leave all other columns out.
    """
    others = [] if only else sorted({name for row in rows for name in row} - set(first))
    columns = [*first, *others]
    with atomic_open(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def parse_table(text: str) -> list[dict[str, str]]:
    """Rows of a table as text, columns under the names of today; without cells that have no column and the reverse.

    Raises:
        csv.Error: not a table.

    Example:
        >>> parse_table("a,b\\n1,2\\n3\\n4,5,6\\n")
        [{'a': '1', 'b': '2'}, {'a': '3'}, {'a': '4', 'b': '5'}]
    """
    return [
        current_names({name: cell for name, cell in row.items() if isinstance(name, str) and isinstance(cell, str)})
        for row in csv_records(io.StringIO(text, newline=""))
    ]


def read_table(path: Path) -> list[dict[str, str]]:
    """As :func:`parse_table`; a missing file is no rows."""
    if not path.is_file():
        return []
    try:
        return parse_table(read_text(path))
    except csv.Error as error:
        raise UserError(f"{path} is not a valid table ({error}): evaluate again.") from None


def update_controls(run: Path, side: str, values: Mapping[str, object]) -> None:
    """Write ``values`` under ``side`` of ``RUN/controls.json``; the other side stays."""
    path = run / CONTROLS
    with locked(
        run, "controls.json", wait=True, name=f".{CONTROLS}.lock"
    ):  # a training and an evaluation may both write
        before = current_controls(read_record(path))
        earlier = before.get(side)
        write_json(path, {**before, side: {**(earlier if isinstance(earlier, dict) else {}), **values}})
