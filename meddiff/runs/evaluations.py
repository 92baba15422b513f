"""What ``lightning evaluate`` writes: tables, what was measured, averages. Each file is whole or absent. Source: own."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from meddiff.common.files import write_json
from meddiff.runs import names
from meddiff.runs.earlier_names import current_controls
from meddiff.runs.earlier_results import MADE
from meddiff.runs.records import read_record
from meddiff.runs.tables import update_controls, write_table

#: Columns by which tables tell models apart; a table that lists them among its first gets them.
WHO = ("model", "images", "seed")


class EvaluationWriter:
    """The folder of one evaluation; parts that were measured before stay.

    Args:
        folder: is made at the first writing.
        about: the model: name, run, checkpoint, images, seed, ...
    """

    def __init__(self, folder: Path, about: Mapping[str, object]) -> None:
        self.folder, self.about = folder, dict(about)

    def table(
        self, name: str, rows: Sequence[Mapping[str, object]], first: Sequence[str] = (), only: bool = False
    ) -> None:
        """``NAME.csv``."""
        who = {column: self.about[column] for column in WHO if column in first}
        write_table(self.folder / f"{name}.csv", [{**who, **row} for row in rows], first, only)

    def part(
        self,
        name: str,
        options: Mapping[str, object],
        figures: Mapping[str, float],
        made: Mapping[str, object] | None = None,
    ) -> None:
        """Record that a part was measured, with which options, its averages, and from which weights and samples."""
        record, summary = self._read(names.ABOUT), current_controls(self._read(names.SUMMARY))
        parts = record.get("parts")
        done = {**(parts if isinstance(parts, dict) else {}), name: dict(options)}
        earlier = record.get(MADE)
        sources = {**(earlier if isinstance(earlier, dict) else {}), **({name: dict(made)} if made else {})}
        write_json(self.folder / names.ABOUT, {**record, **self.about, "parts": done, MADE: sources})
        # JSON has no NaN; null says "was measured and is not a number"
        numbers = {one: value if math.isfinite(value) else None for one, value in figures.items()}
        write_json(self.folder / names.SUMMARY, {**summary, name: numbers})

    def controls(self, run: Path | None, side: str, controls: Mapping[str, object]) -> None:
        """Controls go into the run folder, where the report finds them."""
        if run is not None:
            update_controls(run, side, controls)

    def _read(self, name: str) -> dict[str, object]:
        return read_record(self.folder / name)
