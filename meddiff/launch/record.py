"""``SWEEP/runs.jsonl``: what began and how it ended, a line each, appended and on the disk before the next step. Source: own.

A kill or a power cut leaves all lines but perhaps the last, which is taken out before the next one is written.

Lines: ``started`` (number, parameters, folder), ``process`` (its pid, and when that began), ``stop`` (hyperband asked it to
stop), ``ended`` (state, reason, last lines of its log).
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.files import make_folder, sync_folder
from meddiff.common.outside import own_file
from meddiff.common.text_files import read_bytes
from meddiff.launch.parameters import Values
from meddiff.launch.sweep_file import canonical
from meddiff.runs.metrics_file import end_cut_line

FILE = "runs.jsonl"
#: What the folder of a run is called: its number, and a digest of its parameters.
FOLDER = re.compile(r"[0-9]{4,}-[0-9a-f]{8}")
#: How a run may have ended; "interrupted" goes on by itself, "failed" when it is asked for.
FINISHED, FAILED, INTERRUPTED, STOPPED = "finished", "failed", "interrupted", "stopped"
#: Nobody has written how it ended: it runs, or its runner was killed.
RUNNING = "running"


def folder_of(number: int, values: Values) -> str:
    """The folder of a run.

    Example:
        >>> folder_of(3, {"seed_everything": 0})
        '0003-aa34d06b'
    """
    return f"{number:04d}-{hashlib.sha256(canonical(values).encode()).hexdigest()[:8]}"


@dataclass
class RunRecord:
    """One run of the sweep.

    Attributes:
        number: from 1.
        values: its parameters.
        folder: name of its folder.
        state: how it ended, or "running".
        reason: in a sentence, where it did not just finish.
        last_lines: of its log, where it failed.
        starts: how often it was started.
        pid: of its process, and ``began`` as :func:`meddiff.common.processes.started` says; 0 and "" not known.
        stopped_by: why hyperband asked it to stop; "" it did not.
    """

    number: int
    values: Values
    folder: str
    state: str = RUNNING
    reason: str = ""
    last_lines: list[str] = field(default_factory=list)
    starts: int = 0
    pid: int = 0
    began: str = ""
    stopped_by: str = ""


class Record:
    """The file, read and appended to.

    Args:
        sweep: the folder of the sweep.

    Attributes:
        runs: by number.
    """

    def __init__(self, sweep: Path) -> None:
        self.path = sweep / FILE
        self.runs = read_record(self.path)

    def append(self, event: str, number: int, **what: object) -> None:
        """Add a line, flushed to the disk.

        Raises:
            OSError: no room: nothing is left of the line, and the run stays as it was.
        """
        line = {"event": event, "number": number, "time": round(time.time(), 3), **what}
        data = (json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n").encode()
        new = not self.path.exists()
        make_folder(self.path.parent)
        end_cut_line(own_file(self.path))
        descriptor = os.open(own_file(self.path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, before)
                error.filename = error.filename or str(self.path)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)
        _apply(self.runs, line)


def read_record(path: Path) -> dict[int, RunRecord]:
    """The runs of a sweep by number; lines that are none are passed over.

    Raises:
        UserError: a folder's name that is none of this sweep.
    """
    runs: dict[int, RunRecord] = {}
    text = read_bytes(path).decode("utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            _apply(runs, entry)
    return runs


def _apply(runs: dict[int, RunRecord], entry: Mapping[str, object]) -> None:
    event, number = entry.get("event"), entry.get("number")
    if not isinstance(number, int):
        return
    if event == "started" and isinstance(entry.get("parameters"), dict) and isinstance(entry.get("folder"), str):
        folder = str(entry["folder"])
        if not FOLDER.fullmatch(folder):
            raise UserError(f"{FILE}: {folder!r} is no folder of a sweep's run: somebody has changed the file.")
        one = runs.setdefault(number, RunRecord(number, cast("Values", entry["parameters"]), folder))
        one.state, one.reason, one.last_lines, one.stopped_by = RUNNING, "", [], ""
        one.starts, one.pid, one.began = one.starts + 1, 0, ""
    elif number not in runs:
        return
    elif event == "process":
        pid = entry.get("pid")
        runs[number].pid, runs[number].began = pid if isinstance(pid, int) else 0, str(entry.get("began", ""))
    elif event == "stop":
        runs[number].stopped_by = str(entry.get("reason", ""))
    elif event == "ended":
        one, lines = runs[number], entry.get("last_lines")
        one.state, one.reason = str(entry.get("state", INTERRUPTED)), str(entry.get("reason", ""))
        one.last_lines = [str(line) for line in lines] if isinstance(lines, list) else []
