"""The runs of a sweep on the terminal while it runs, at its end, and as ``rows.csv``. Source: own."""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

import yaml

from meddiff.common.errors import UserError
from meddiff.common.outside import own_file, terminal
from meddiff.common.text_files import read_bytes
from meddiff.launch.job import Job, last_lines
from meddiff.launch.objective import Measured, goal_of
from meddiff.launch.optuna_search import front
from meddiff.launch.parameters import Values
from meddiff.launch.record import FAILED, FINISHED, RUNNING, STOPPED, RunRecord
from meddiff.launch.runner import Runner, count
from meddiff.runs import names
from meddiff.runs.config_file import parse_config
from meddiff.runs.tables import write_table
from meddiff.runs.values import nested, number

ROWS = "rows.csv"
#: Seconds between two drawings on a terminal, and two lines in a file.
LIVE_S, FILE_S = 1.0, 4.0
#: What is shown of a run when the sweep names no metric.
HEADLINE = ("fidelity/fd_domain", "grounding/macro_cnr")
#: Lines of the live table; more runs at the same time are counted.
MOST_LINES = 16


class LiveTable:
    """Draws the runs that are under way: over and over on a terminal, a line every four seconds elsewhere.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream = stream
        self._live = stream.isatty()
        self._begin = time.monotonic()
        self._last = 0.0
        self._drawn = 0
        self._told = 0
        self._steps: dict[int, float] = {}
        self._before: int | None = None

    def __call__(self, runner: Runner) -> None:
        """Draw, if it is time."""
        if self._before is None:
            self._before = trained(runner)
        now = time.monotonic()
        fresh = len(runner.notes) > self._told
        if not fresh and now < self._last + (LIVE_S if self._live else FILE_S):
            return
        self._last = now
        with suppress(OSError):  # a closed terminal, or a full disk below a file, must not end the runs
            self._clear()
            for note in runner.notes[self._told :]:
                print(terminal(note), file=self.stream)
            self._told = len(runner.notes)
            if self._live:
                lines = [self.summary(runner), *self._rows(runner)]
                columns = shutil.get_terminal_size().columns - 1
                print("\n".join(line[:columns] for line in lines), file=self.stream)
                self._drawn = len(lines)
            else:
                print(f"{self.summary(runner)} | {'; '.join(self._rows(runner)) or 'no run'}", file=self.stream)
            self.stream.flush()

    def close(self) -> None:
        """Take the live table away; the final list follows."""
        with suppress(OSError):
            self._clear()
            self.stream.flush()

    def _clear(self) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def summary(self, runner: Runner) -> str:
        """How far the sweep is, its rate, and how long it will take."""
        parts = [f"{count(runner, FINISHED)} of {runner.total} finished"]
        parts += [f"{found} {state}" for state in (STOPPED, FAILED) if (found := count(runner, state))]
        parts += ["stopping: waiting for the runs to end between two steps"] if runner.stopping else []
        passed = (time.monotonic() - self._begin) / 3600
        fractions = [one for job in runner.running if (one := self._fraction(job)) is not None]
        work = trained(runner) - (self._before or 0) + sum(fractions)
        if work > 0.01 and passed > 0:
            left = runner.total - done(runner) - sum(fractions)
            parts.append(f"{rate(work / passed)} runs/h, {clock(left / work * passed * 3600)} left")
        else:
            parts.append(f"{clock(passed * 3600)} so far")
        return f"{runner.plan.name}: ".replace("\n", " ") + ", ".join(parts)

    def _rows(self, runner: Runner) -> list[str]:
        rows = []
        for job in runner.running[:MOST_LINES]:
            fraction = self._fraction(job)
            parts = [job.record.folder.partition("-")[0], short(varying(runner, job.record.values))]
            parts += ["stopping" if job.asked else f"{100 * fraction:.0f} %" if fraction else beginning(job)]
            parts += [f"{name} {value:.4g}" for name, value in figures(runner, job.record).items() if value is not None]
            rows.append(terminal("  ".join(parts)))
        hidden = len(runner.running) - MOST_LINES
        return rows + ([f"and {hidden} more"] if hidden > 0 else [])

    def _fraction(self, job: Job) -> float | None:
        """How much of its steps a run has taken; None where that is not known."""
        most = self._steps.get(job.record.number)
        if most is None:
            most = steps_of(job.place.run)
            if most is None:
                return None
            self._steps[job.record.number] = most
        step = next((at for row in reversed(job.measured.rows) if (at := number(row.get("step"))) is not None), None)
        return min(1.0, (step + 1) / most) if step is not None else 0.0


def beginning(job: Job) -> str:
    """What a run does of which no share is known: its step, or the last line of its log, cut."""
    step = next((at for row in reversed(job.measured.rows) if (at := number(row.get("step"))) is not None), None)
    if step is not None:
        return f"step {step:.0f}"
    lines = last_lines(job.place.log)
    return f"begins: {cell(lines[-1])}" if lines else "begins"


def steps_of(run: Path) -> float | None:
    """Steps that a run is to take, by its ``config.yaml``."""
    try:
        config = parse_config(read_bytes(run / names.CONFIG).decode("utf-8", errors="replace"))
    except (OSError, UserError, yaml.YAMLError):
        return None
    most = number(nested(config, "trainer", "max_steps"))
    return most if most is not None and most > 0 else None


def trained(runner: Runner) -> int:
    """Runs that took their time: one that failed at its start says nothing about the others."""
    return count(runner, FINISHED) + count(runner, STOPPED)


def done(runner: Runner) -> int:
    """Runs that need nothing more."""
    return trained(runner) + count(runner, FAILED)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> clock(3725)
        '1:02:05'
    """
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def rate(value: float) -> str:
    """A number to two digits, without exponents.

    Example:
        >>> rate(0.123), rate(3.21), rate(1234.5)
        ('0.12', '3.2', '1,234')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def varying(runner: Runner, values: Values) -> Values:
    """Parameters that differ between runs; all where none does."""
    constant = {path[0] for path, one in runner.sweep.parameters.items() if one.kind == "constant"}
    return {name: value for name, value in values.items() if name not in constant} or values


def short(values: Values) -> str:
    """Parameters in one line, by the last part of their names.

    Example:
        >>> short({"model.freeze_text_encoder": True, "data.prompt": "label"})
        'freeze_text_encoder=True prompt=label'
    """
    return " ".join(f"{name.rpartition('.')[2]}={cell(value)}" for name, value in values.items())


def cell(value: object) -> str:
    """A value for a line: numbers to four digits, long texts cut."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def figures(runner: Runner, one: RunRecord) -> dict[str, float | None]:
    """The newest values of what the sweep looks at."""
    measured = runner.measured(one)
    wanted = [objective.name for objective in runner.sweep.objectives] or list(HEADLINE)
    found = {name: measured.newest(name) for name in wanted}
    return found if runner.sweep.objectives else {name: value for name, value in found.items() if value is not None}


def final_list(runner: Runner) -> list[str]:
    """Every run with its state, a line each; the reason and the last lines of those that failed."""
    lines = []
    for one in sorted(runner.record.runs.values(), key=lambda run: run.number):
        state = one.state if one.state != RUNNING else "not ended"
        found = [f"{name} {value:.4g}" for name, value in figures(runner, one).items() if value is not None]
        lines.append("  ".join([f"{one.folder:<14}{state:<12}{short(varying(runner, one.values))}", *found]))
        lines += [f"    {one.reason}"] if one.reason else []
        lines += [f"    | {line}" for line in one.last_lines]
        lines += [f"    log: {runner.place(one).log}"] if one.state == FAILED else []
    return [terminal(line) for line in lines]


def write_rows(runner: Runner) -> Path:
    """``SWEEP/rows.csv``: number, state, parameters, newest and best values of the figures, a row a run.

    The best value stands beside those figures of which it is known whether less or more is better; with several objectives
    ``on_front`` is 1 for the runs that no other beats (by their newest values).
    """
    goals: dict[str, str] = {objective.name: objective.goal for objective in runner.sweep.objectives}
    rows: list[dict[str, object]] = []
    for one in sorted(runner.record.runs.values(), key=lambda run: run.number):
        measured, values = runner.measured(one), one.values
        row: dict[str, object] = {"number": one.number, "folder": one.folder, "state": one.state}
        row |= {"reason": terminal(one.reason), **{name: terminal(value) for name, value in values.items()}}
        row |= newest_and_best(measured, goals)
        rows.append(row)
    if len(goals) > 1:
        _mark_front(rows, goals)
    parameters = dict.fromkeys(path[0] for path in runner.sweep.parameters)
    first = ["number", "folder", "state", "reason", *parameters, "images", *goals]
    target = own_file(runner.plan.folder / ROWS)
    write_table(target, rows, first)
    return target


def newest_and_best(measured: Measured, goals: Mapping[str, str]) -> dict[str, object]:
    """The columns of one run's figures."""
    row: dict[str, object] = {}
    images = measured.newest("images")
    row |= {"images": int(images)} if images is not None else {}
    looked_at = [name for name in goals if measured.newest(name) is not None]
    found = [name for name in measured.figures() if name.startswith(("grounding/", "fidelity/"))]
    for name in dict.fromkeys([*looked_at, *found]):
        row[name] = measured.newest(name)
        goal = goals.get(name) or goal_of(name)
        if goal is not None:
            row[f"best {name}"] = measured.best(name, goal)
    return row


def _mark_front(rows: Sequence[dict[str, object]], goals: Mapping[str, str]) -> None:
    measured = [row for row in rows if row["state"] in (FINISHED, STOPPED) and all(name in row for name in goals)]
    points = [[cast("float", row[name]) for name in goals] for row in measured]
    best = front(points, list(goals.values()))
    for place, row in enumerate(measured):
        row["on_front"] = int(place in best)
