"""A run folder as a report sees it: what is there is read when it is asked for, what is missing is empty.

Nothing here imports torch or Lightning: the page is rewritten from a training process after every evaluation, and must
also be made on a machine that has neither. Source: own (the run folder of the design).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import yaml

from meddiff.common.errors import UserError
from meddiff.runs import names
from meddiff.runs.config_file import parse_config
from meddiff.runs.earlier_names import current_controls
from meddiff.runs.facts import Facts
from meddiff.runs.metrics_file import MetricsRow, parse_metrics
from meddiff.runs.run_files import RunFiles
from meddiff.runs.values import nested, number

#: What a gallery shows: file names, texts, numbers.
Entry = dict[str, object]
#: The order in which a report names the files that it could not read.
ORDER = (
    names.CONFIG,
    names.METRICS,
    names.TRADEOFF,
    names.CONTROLS,
    names.GROUNDING,
    f"{names.GROUNDING}/{names.EXCLUDED}",
    f"{names.MEDIA}/{names.ATTENTION}",
    f"{names.MEDIA}/{names.SAMPLES}",
    f"{names.MEDIA}/{names.SALIENCY}",
    f"{names.MEDIA}/{names.PROTOTYPES}",
    names.EVALUATIONS,
    names.ABOUT,
    names.SUMMARY,
)


@dataclass(frozen=True)
class Evaluation:
    """One row of the trade-off: ``images`` trained on before it, and what was measured (absent: not evaluated)."""

    step: int
    images: int
    values: dict[str, float]


class Run(RunFiles):
    """Everything of one run folder that a report shows; each file is read once, when it is first asked for.

    Args:
        path: the folder; :func:`read_run` refuses what is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._evaluated: dict[str, list[dict[str, str]]] = {}

    @cached_property
    def name(self) -> str:
        """How the page calls it: as configured, else as its folder; a published model as its evaluation calls it."""
        about = self.published
        return str(about.get("model")) if about else self.facts.name

    @cached_property
    def published(self) -> dict[str, object]:
        """``evaluation.json`` where the folder is the evaluation of a published model; else empty."""
        about = self._json(names.ABOUT)
        return about if isinstance(about, dict) and about.get("published") is True else {}

    @cached_property
    def facts(self) -> Facts:
        """What its configuration says."""
        return Facts(self.path, None, self.config)

    @cached_property
    def sweep(self) -> str:
        """The name of the sweep that it belongs to, from the folder above it that holds one; "" if none does."""
        above = list(self.path.resolve().parents)[:3]
        return next((folder.name for folder in above if (folder / names.SWEEP).is_file()), "")

    @cached_property
    def config_text(self) -> str:
        """``config.yaml`` as written, "" if there is none."""
        return self._text(names.CONFIG)

    @cached_property
    def config(self) -> dict[str, object]:
        """The same parsed."""
        try:
            return parse_config(self.config_text)
        except yaml.YAMLError:
            self._problems.append((names.CONFIG, f"{names.CONFIG} is not valid YAML."))
            return {}

    @cached_property
    def rows(self) -> list[MetricsRow]:
        """Of ``metrics.jsonl``."""
        return parse_metrics(self._text(names.METRICS))

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Of ``tradeoff.csv``, by images; of the logged rows where there is none."""
        table = self._table(names.TRADEOFF)
        return _evaluations(table or [row for row in self.rows if any(_measured(key) for key in row)])

    @cached_property
    def controls(self) -> dict[str, object]:
        """``controls.json``."""
        controls = self._json(names.CONTROLS)
        return current_controls(controls) if isinstance(controls, dict) else {}

    @cached_property
    def phrases_images(self) -> int | None:
        """Images trained on when the newest per-sample grounding table was written."""
        return max(_numbered(self.path / names.GROUNDING, "csv"), default=None)

    @cached_property
    def phrases(self) -> list[dict[str, str]]:
        """The newest per-sample grounding table."""
        tables = _numbered(self.path / names.GROUNDING, "csv")
        return self._table(f"{names.GROUNDING}/{tables[max(tables)].name}") if tables else []

    def phrases_at(self, images: int) -> list[dict[str, str]]:
        """The per-sample grounding table of one evaluation."""
        return (
            self.phrases
            if images == self.phrases_images
            else self._table(f"{names.GROUNDING}/{names.by_images(images)}.csv")
        )

    @cached_property
    def excluded(self) -> list[dict[str, str]]:
        """Samples left out of grounding, with the reason."""
        return self._table(f"{names.GROUNDING}/{names.EXCLUDED}")

    @cached_property
    def attention(self) -> dict[int, list[Entry]]:
        """Word maps by images trained on."""
        return self._media(names.ATTENTION)

    @cached_property
    def samples(self) -> dict[int, list[Entry]]:
        """Drawn images by images trained on."""
        return self._media(names.SAMPLES)

    @cached_property
    def saliency_maps(self) -> dict[int, list[Entry]]:
        """Maps of every tool at every timestep, by images trained on."""
        return self._media(names.SALIENCY)

    @cached_property
    def prototype_views(self) -> dict[int, list[Entry]]:
        """Prototypes with their pictures, by images trained on."""
        return self._media(names.PROTOTYPES)

    def mechanism(self, table: str = "") -> list[dict[str, str]]:
        """What `lightning evaluate mechanism` found last: the summary, or the table that is called ``mechanism`` and this."""
        return self.evaluated(f"{names.MECHANISM}{table}")

    def saliency(self, table: str = "") -> list[dict[str, str]]:
        """What `lightning explain` found last: curves by timestep, or the table that is called ``saliency`` and this."""
        return self.evaluated(f"{names.MAPS_BY_TIMESTEP}{table}")

    def evaluated(self, name: str) -> list[dict[str, str]]:
        """A table of the evaluation that has it when most images had been seen."""
        if name not in self._evaluated:
            files = sorted((self.path / names.EVALUATIONS).glob(f"*/{name}.csv"))
            self._evaluated[name] = self._table(files[-1].relative_to(self.path).as_posix()) if files else []
        return self._evaluated[name]

    def summary(self, part: str) -> dict[str, float]:
        """Figures of a part of ``lightning evaluate``, of the evaluation that has it when most images had been seen."""
        found = [one for one in self._summaries if part in one]
        figures = found[-1][part] if found else {}
        return {name: value for name, cell in figures.items() if (value := number(cell)) is not None}

    @cached_property
    def _summaries(self) -> list[dict[str, dict[str, object]]]:
        """Of all evaluations, by images; of a published model the one in its folder."""
        files = sorted(self.path.glob(f"{names.EVALUATIONS}/*/{names.SUMMARY}")) or [self.path / names.SUMMARY]
        found = [self._json(file.relative_to(self.path).as_posix()) for file in files]
        return [
            {part: figures for part, figures in current_controls(one).items() if isinstance(figures, dict)}
            for one in found
            if isinstance(one, dict)
        ]

    @property
    def problems(self) -> list[str]:
        """Files that are there and could not be read, a sentence each; reads all of them."""
        _ = self.config, self.rows, self.evaluations, self.controls, self.saliency(), self.saliency_maps
        _ = self.phrases, self.excluded, self.attention, self.samples, self.prototype_views, self.mechanism()
        _ = self._summaries
        return [text for _, text in sorted(self._problems, key=lambda problem: _place(problem[0]))]

    def series(self, key: str) -> list[tuple[Evaluation, float]]:
        """The evaluations that have ``key``, with its value."""
        return [(evaluation, evaluation.values[key]) for evaluation in self.evaluations if key in evaluation.values]

    def control(self, *names: str) -> float | None:
        """``controls[names[0]][names[1]]...`` if it is there and a finite number."""
        return number(nested(self.controls, *names))

    def setting(self, *names: str) -> object:
        """``config[names[0]][names[1]]...`` or None."""
        return nested(self.config, *names)

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
        try:
            return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M UTC") if times else ""
        except (OverflowError, ValueError, OSError):  # no moment of any calendar
            return ""

    def _media(self, kind: str) -> dict[int, list[Entry]]:
        found: dict[int, list[Entry]] = {}
        for images, file in sorted(_numbered(self.path / names.MEDIA / kind, "json").items()):
            entries = self._json(f"{names.MEDIA}/{kind}/{file.name}")
            found[images] = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        return found


def read_run(path: str | Path) -> Run:
    """A run by its folder.

    Raises:
        UserError: there is no such folder, or it is not one of a run.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"No run folder at {path}.")
    if not any((path / mark).is_file() for mark in names.MARKS):
        inside = sorted(path.glob(f"*/{names.CONFIG}")) + sorted(path.glob(f"*/*/{names.CONFIG}"))
        hint = (
            f"name one of the runs in it, such as {inside[-1].parent}" if inside else "a run folder is RUNS/NAME/TIME"
        )
        marks = f"{', '.join(names.MARKS[:-1])} or {names.MARKS[-1]}"
        raise UserError(f"{path} is not a run folder (no {marks} in it): {hint}.")
    return Run(path)


def _place(file: str) -> int:
    """Of a file in :data:`ORDER`: that of the last part that its name begins with."""
    return max(place for place, part in enumerate(ORDER) if file.startswith(part))


def _measured(key: str) -> bool:
    return key.startswith(("grounding/", "fidelity/"))


def _evaluations(table: Iterable[Mapping[str, object]]) -> list[Evaluation]:
    """Sorted by images; of rows for the same images (a run that went on) the later one wins where it has a value."""
    found: dict[int, Evaluation] = {}
    for row in table:
        step, images = number(row.get("step")), number(row.get("images"))
        if step is None and images is None:
            continue
        values = {key: value for key, cell in row.items() if _measured(key) and (value := number(cell)) is not None}
        place = int(images if images is not None else step or 0)
        earlier = found[place].values if place in found else {}
        found[place] = Evaluation(int(step or 0), place, {**earlier, **values})
    return [found[images] for images in sorted(found)]


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    return {int(file.stem): file for file in folder.glob(f"*.{suffix}") if re.fullmatch(r"[0-9]+", file.stem)}
