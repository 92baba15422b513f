"""``metrics.jsonl`` of a run: every logged row, the source of every report. Source: own."""

import os
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.text_files import read_bytes
from meddiff.runs.earlier_names import current_names

__all__ = ["MetricsRow", "end_cut_line", "parse_metrics", "read_metrics"]

#: ``{"step": 9, "time": 1795251052.9, "train/loss": 0.41}``; null is a value that was not finite.
MetricsRow = dict[str, float | None]


def parse_metrics(text: str) -> list[MetricsRow]:
    """Rows of a ``metrics.jsonl`` under the names of today; a last line cut off by a kill is left out.

    Example:
        >>> parse_metrics('{"step": 9, "train/loss": 0.5}\\n{"step": 19, "tra')
        [{'step': 9, 'train/loss': 0.5}]
    """
    rows = []
    for line in text.splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(current_names(row))
    return rows


def read_metrics(path: str | os.PathLike[str]) -> list[MetricsRow]:
    """As :func:`parse_metrics`; a missing file is no rows."""
    file = Path(path)
    return parse_metrics(read_bytes(file).decode("utf-8", errors="replace")) if file.is_file() else []


def end_cut_line(path: str | os.PathLike[str]) -> None:
    """Take out a last line that a kill cut off: the next row would be glued to it, and both would be lost."""
    file = Path(path)
    if not file.is_file() or file.stat().st_size == 0:
        return
    with file.open("rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) == b"\n":
            return
        content = file.read_bytes()
        last = content[content.rfind(b"\n") + 1 :]
        if parse_metrics(last.decode("utf-8", errors="replace")):
            stream.write(b"\n")  # only its end is missing
        else:
            stream.truncate(len(content) - len(last))
