"""Evaluation folders of runs, and the models they stand for: runs that differ only by their seed are one model.

Nothing here imports torch. Source: own (the folder of an evaluation, RUN/evaluation/NAME/).
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.runs.folder import number

ABOUT = "evaluation.json"
#: (key, class, phrase)
Sample = tuple[str, str, str]


@dataclass
class Evaluation:
    """One evaluation folder; its tables are read when they are asked for, a missing one is no rows.

    Attributes:
        path: the folder.
        about: ``evaluation.json``.
        settings: model and data section of the run's ``config.yaml``; empty if there is none.
    """

    path: Path
    about: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    _tables: dict[str, list[dict[str, str]]] = field(default_factory=dict, repr=False)

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of ``NAME.csv`` as text."""
        if name not in self._tables:
            file = self.path / f"{name}.csv"
            rows: list[dict[str, Any]] = []
            if file.is_file():
                with file.open(encoding="utf-8", newline="") as stream:
                    rows = list(csv.DictReader(stream))
            self._tables[name] = [{k: v for k, v in row.items() if isinstance(v, str)} for row in rows]
        return self._tables[name]

    @property
    def seed(self) -> int:
        """Of training."""
        return int(number(self.about.get("seed")) or 0)


@dataclass
class Model:
    """The evaluations that differ by nothing but the training seed.

    Attributes:
        label: how tables call it.
        evaluations: one a seed, by seed.
    """

    label: str
    evaluations: list[Evaluation]

    @property
    def about(self) -> dict[str, Any]:
        """What the evaluations share."""
        return self.evaluations[0].about

    @property
    def images(self) -> int:
        """Images seen in training."""
        return int(number(self.about.get("images")) or 0)

    @property
    def side(self) -> str:
        """``frozen`` or ``learnable`` text encoder; ``base`` before training."""
        if not self.images:
            return "base"
        return "frozen" if self.about.get("freeze_text_encoder") else "learnable"

    @property
    def prompt(self) -> str:
        """Kind of text it was trained on."""
        return str(self.about.get("prompt", ""))

    @property
    def is_coco(self) -> bool:
        """Was it evaluated on MS-COCO?"""
        return str(self.about.get("cohort", "")).lower() == "mscoco"

    def describe(self) -> str:
        """One line below a table."""
        seeds = ", ".join(str(one.seed) for one in self.evaluations)
        return (
            f"{self.label}: {self.about.get('model')}, text encoder {self.side}, {self.prompt} prompts, "
            f"{self.images:,} images seen, cohort {self.about.get('cohort')}, "
            f"{'seed' if len(self.evaluations) == 1 else 'seeds'} {seeds}."
        )


@dataclass
class Scores:
    """Per-sample scores of a model.

    Attributes:
        samples: (N) key, class and phrase; those with a defined CNR in any seed.
        values: metric -> (S, N), a row a seed, NaN where undefined.
        left_out: samples without a defined CNR in any seed.
    """

    samples: list[Sample]
    values: dict[str, NDArray[np.float64]]
    left_out: int

    @property
    def keys(self) -> list[str]:
        """Image of each sample."""
        return [sample[0] for sample in self.samples]

    @property
    def classes(self) -> list[str]:
        """Class of each sample."""
        return [sample[1] for sample in self.samples]


def scores_of(tables: Sequence[Sequence[dict[str, str]]], metrics: Sequence[str]) -> Scores:
    """Scores by sample and seed; a sample without a defined CNR counts in no column of its seed."""
    keyed = [{(r.get("key", ""), r.get("class", ""), r.get("phrase", "")): r for r in rows} for rows in tables]
    defined = [{sample: row for sample, row in rows.items() if number(row.get("cnr")) is not None} for rows in keyed]
    places = {sample: place for place, sample in enumerate(sorted({sample for rows in defined for sample in rows}))}
    values = {name: np.full((len(tables), len(places)), np.nan) for name in metrics}
    for seed, rows in enumerate(defined):
        for sample, row in rows.items():
            for name in metrics:
                value = number(row.get(name))
                if value is not None:
                    values[name][seed, places[sample]] = value
    everything = {sample for rows in keyed for sample in rows}
    return Scores(list(places), values, len(everything) - len(places))


def read_evaluation(run: str | Path, name: str | None = None) -> Evaluation:
    """The newest finished evaluation of a run (most images seen, then latest), or the one called ``name``.

    ``run`` may also be the folder of an evaluation itself.

    Raises:
        UserError: no such folder, or it has no (such) evaluation.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"No run folder at {run}.")
    if (run / ABOUT).is_file():
        return _open(run)
    found = sorted(run.glob(f"evaluation/*/{ABOUT}"))
    if name is not None:
        chosen = run / "evaluation" / name
        if not (chosen / ABOUT).is_file():
            there = ", ".join(file.parent.name for file in found) or "none"
            raise UserError(f"{run} has no evaluation {name!r} (there: {there}): `lightning evaluate all --run {run}`.")
        return _open(chosen)
    if not found:
        raise UserError(f"{run} has not been evaluated: run `lightning evaluate all --run {run}` first.")
    evaluations = [_open(file.parent) for file in found]
    return max(evaluations, key=lambda one: (number(one.about.get("images")) or 0, (one.path / ABOUT).stat().st_mtime))


def _open(folder: Path) -> Evaluation:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / ABOUT} cannot be read ({error}): evaluate again.") from error
    if not isinstance(about, dict):
        raise UserError(f"{folder / ABOUT} does not describe an evaluation: evaluate again.")
    return Evaluation(folder, about, _settings(folder))


def _settings(folder: Path) -> dict[str, Any]:
    """The parts of the run's configuration that make two runs differ by more than their seed."""
    file = folder.resolve().parent.parent / "config.yaml"
    if not file.is_file():
        return {}
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return {}
    return {part: config.get(part) for part in ("model", "data")} if isinstance(config, dict) else {}


def group_models(evaluations: Sequence[Evaluation]) -> list[Model]:
    """Models in the order in which they were named, with labels that tell them apart.

    Evaluations of equal name, freezing, prompts, cohort, images and settings are seeds of one model; a folder named
    twice counts once, and a second run of the same seed is a model of its own.
    """
    groups: dict[str, list[Evaluation]] = {}
    seen: set[Path] = set()
    for one in evaluations:
        if one.path.resolve() in seen:
            continue
        seen.add(one.path.resolve())
        shared = [one.about.get(k) for k in ("model", "freeze_text_encoder", "prompt", "cohort", "images")]
        key = json.dumps([shared, one.settings], sort_keys=True, default=str)
        while key in groups and any(other.seed == one.seed for other in groups[key]):
            key += "+"
        groups.setdefault(key, []).append(one)
    models = [Model("", sorted(group, key=lambda one: one.seed)) for group in groups.values()]
    _label(models)
    return models


def _label(models: Sequence[Model]) -> None:
    """The shortest of side, prompt, name, images, cohort, folder that makes labels differ."""
    parts = [
        lambda m: m.side,
        lambda m: m.prompt,
        lambda m: str(m.about.get("model")),
        lambda m: f"{m.images:,} images",
        lambda m: str(m.about.get("cohort")),
        lambda m: _run_folder(m.evaluations[0].path),
    ]
    chosen = [parts[0]]
    for part in parts[1:]:
        labels = [" ".join(p(model) for p in chosen) for model in models]
        if len(set(labels)) == len(labels):
            break
        if len({part(model) for model in models}) > 1:
            chosen.append(part)
    for place, model in enumerate(models):
        model.label = " ".join(part(model) for part in chosen)
        if any(other.label == model.label for other in models[:place]):
            model.label += f" ({place + 1})"


def _run_folder(path: Path) -> str:
    return path.resolve().parent.parent.name
