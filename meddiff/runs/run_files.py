"""The files of a run folder as text, JSON and tables: what cannot be read is empty, and a sentence says so. Source: own."""

import csv
import os
from pathlib import Path

from meddiff.common.bounded import Unbounded, parse_json
from meddiff.common.errors import UserError
from meddiff.common.text_files import LARGEST, no_file, read_bytes
from meddiff.runs.tables import parse_table


class RunFiles:
    """Reads files of a folder, and remembers what is wrong with them.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._problems: list[tuple[str, str]] = []  # (file, sentence)

    def _text(self, name: str) -> str:
        file = self.path / name
        try:
            return read_bytes(file).decode("utf-8", errors="replace") if os.path.lexists(file) else ""
        except UserError:
            kind = no_file(file)
            what = f"is {kind}, not a file" if kind else f"is larger than {LARGEST:,} bytes"
            self._problems.append((name, f"{name} {what}, and is left out."))
        except OSError as error:
            self._problems.append((name, f"{name} could not be read ({error.strerror})."))
        return ""

    def _json(self, name: str) -> object:
        text = self._text(name)
        try:
            return parse_json(text) if text else None
        except Unbounded as error:
            self._problems.append((name, f"{name} {error}, and is left out."))
        except ValueError:
            self._problems.append((name, f"{name} is not valid JSON."))
        return None

    def _table(self, name: str) -> list[dict[str, str]]:
        try:
            return parse_table(self._text(name))
        except csv.Error:
            self._problems.append((name, f"{name} is not a valid table."))
            return []
