"""A run folder as a report sees it: what is there is read, what is missing is empty.

Nothing here imports torch or Lightning: the page is rewritten from a training process after every evaluation, and must
also be made on a machine that has neither. Source: own (the run folder of the design).
"""

import csv
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from meddiff.common.errors import UserError

#: Any of these makes a folder a run folder.
MARKS = ("config.yaml", "metrics.jsonl", "tradeoff.csv")


@dataclass(frozen=True)
class Evaluation:
    """One row of the trade-off: ``images`` trained on before it, and what was measured (absent: not evaluated)."""

    step: int
    images: int
    values: dict[str, float]


@dataclass
class Run:
    """Everything of one run folder that a report shows.

    Attributes:
        path: the folder.
        name: how the page calls it.
        config_text: ``config.yaml`` as written, "" if there is none.
        config: the same parsed.
        rows: of ``metrics.jsonl``.
        evaluations: of ``tradeoff.csv``, by images.
        controls: ``controls.json``.
        phrases: the newest per-sample grounding table.
        phrases_images: images trained on when it was written.
        excluded: samples left out of grounding, with the reason.
        attention: word maps by images trained on.
        samples: drawn images by images trained on.
        problems: files that are there and could not be read, a sentence each.
    """

    path: Path
    name: str
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    controls: dict[str, Any] = field(default_factory=dict)
    phrases: list[dict[str, str]] = field(default_factory=list)
    phrases_images: int | None = None
    excluded: list[dict[str, str]] = field(default_factory=list)
    attention: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    samples: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def series(self, key: str) -> list[tuple[Evaluation, float]]:
        """The evaluations that have ``key``, with its value."""
        return [(evaluation, evaluation.values[key]) for evaluation in self.evaluations if key in evaluation.values]

    def control(self, *names: str) -> float | None:
        """``controls[names[0]][names[1]]...`` if it is there and a finite number."""
        value: Any = self.controls
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return number(value)

    def setting(self, *names: str) -> Any:
        """``config[names[0]][names[1]]...`` or None."""
        value: Any = self.config
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    @cached_property
    def images_per_step(self) -> float | None:
        """From the newest evaluation or row that names both, else the configured batch size."""
        for evaluation in reversed(self.evaluations):
            if evaluation.step > 0 and evaluation.images > 0:
                return evaluation.images / evaluation.step
        for row in reversed(self.rows):
            step, images = number(row.get("step")), number(row.get("images"))
            if step and images:
                return images / (step + 1)  # rows count steps from 0
        return number(self.setting("data", "init_args", "batch_size"))

    def logged(self, key: str) -> list[tuple[float, float]]:
        """(images trained on, value) of a name in ``metrics.jsonl``; steps if the images are not known."""
        points = []
        for row in self.rows:
            value, step, images = number(row.get(key)), number(row.get("step")), number(row.get("images"))
            if value is not None and (images is not None or step is not None):
                points.append((images if images is not None else (step or 0) * (self.images_per_step or 1), value))
        return points

    @property
    def updated(self) -> str:
        """Time of the newest row, e.g. ``2026-11-21 09:10 UTC``; "" if no row has one."""
        times = [value for row in self.rows if (value := number(row.get("time"))) is not None]
        return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M UTC") if times else ""


def number(value: Any) -> float | None:
    """A finite float, or None (empty cell, null, NaN, text)."""
    if value is None or isinstance(value, bool | list | dict) or value == "":
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def read_run(path: str | Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: there is no such folder, or it is not one of a run.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"No run folder at {path}.")
    if not any((path / mark).is_file() for mark in MARKS):
        inside = sorted(path.glob("*/config.yaml")) + sorted(path.glob("*/*/config.yaml"))
        hint = (
            f"name one of the runs in it, such as {inside[-1].parent}" if inside else "a run folder is RUNS/NAME/TIME"
        )
        raise UserError(f"{path} is not a run folder (no {', '.join(MARKS[:-1])} or {MARKS[-1]} in it): {hint}.")
    run = Run(path, path.resolve().name)
    run.config_text = _text(run, "config.yaml")
    try:
        config = yaml.load(run.config_text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        run.config = config if isinstance(config, dict) else {}
    except yaml.YAMLError:
        run.problems.append("config.yaml is not valid YAML.")
    parent = path.resolve().parent.name
    name = run.config.get("name") or parent
    run.name = str(name) if name else run.name
    run.rows = [row for row in _json_lines(_text(run, "metrics.jsonl")) if isinstance(row, dict)]
    table = _table(run, "tradeoff.csv")
    run.evaluations = _evaluations(table or [row for row in run.rows if any(_measured(key) for key in row)])
    controls = _json(run, "controls.json")
    run.controls = controls if isinstance(controls, dict) else {}
    tables = _numbered(path / "grounding", "csv")
    if tables:
        run.phrases_images = max(tables)
        run.phrases = _table(run, f"grounding/{tables[run.phrases_images].name}")
    run.excluded = _table(run, "grounding/excluded.csv")
    for kind, found in (("attention", run.attention), ("samples", run.samples)):
        for images, file in sorted(_numbered(path / "media" / kind, "json").items()):
            entries = _json(run, f"media/{kind}/{file.name}")
            found[images] = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return run


def distinct_names(runs: list[Run]) -> None:
    """Runs of one name are told apart by their folder's (a time), and what is still equal by its number."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = f"{run.name} {run.path.resolve().name}"
    names = [run.name for run in runs]
    for position, run in enumerate(runs):
        if names.count(run.name) > 1:
            run.name = f"{run.name} ({names[: position + 1].count(names[position])})"


def _measured(key: str) -> bool:
    return key.startswith(("grounding/", "fidelity/"))


def _evaluations(table: Iterable[dict[str, Any]]) -> list[Evaluation]:
    """Sorted by images; of rows for the same images (a run that went on) the later one wins where it has a value."""
    found: dict[int, Evaluation] = {}
    for row in table:
        step, images = number(row.get("step")), number(row.get("images"))
        if step is None and images is None:
            continue
        values = {
            key: value for key, cell in row.items() if _measured(str(key)) and (value := number(cell)) is not None
        }
        place = int(images if images is not None else step or 0)
        earlier = found[place].values if place in found else {}
        found[place] = Evaluation(int(step or 0), place, {**earlier, **values})
    return [found[images] for images in sorted(found)]


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    return {int(file.stem): file for file in folder.glob(f"*.{suffix}") if re.fullmatch(r"[0-9]+", file.stem)}


def _text(run: Run, name: str) -> str:
    file = run.path / name
    try:
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    except OSError as error:
        run.problems.append(f"{name} could not be read ({error.strerror}).")
        return ""


def _json(run: Run, name: str) -> Any:
    text = _text(run, name)
    try:
        return json.loads(text) if text else None
    except json.JSONDecodeError:
        run.problems.append(f"{name} is not valid JSON.")
        return None


def _json_lines(text: str) -> list[Any]:
    """A last line cut off by a kill is left out."""
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _table(run: Run, name: str) -> list[dict[str, str]]:
    try:
        return [
            {key: cell for key, cell in row.items() if isinstance(key, str) and isinstance(cell, str)}
            for row in csv.DictReader(_text(run, name).splitlines())
        ]
    except csv.Error:
        run.problems.append(f"{name} is not a valid table.")
        return []
