"""What `lightning evaluate` left in ``RUN/evaluation/NAME/``, read lazily. No torch. Source: own."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from meddiff.common.errors import UserError
from meddiff.common.outside import inside
from meddiff.common.text_files import read_text
from meddiff.runs import names
from meddiff.runs.config_file import parse_config
from meddiff.runs.earlier_names import current_name
from meddiff.runs.records import read_record
from meddiff.runs.tables import read_table
from meddiff.runs.values import number


@dataclass
class EvaluationFolder:
    """One evaluation; its tables are read when they are asked for, a missing one is no rows.

    Attributes:
        path: the folder.
        about: ``evaluation.json``.
        settings: model and data section of the run's ``config.yaml``; empty if there is none.
    """

    path: Path
    about: dict[str, object]
    settings: dict[str, object] = field(default_factory=dict)
    _tables: dict[str, list[dict[str, str]]] = field(default_factory=dict, repr=False)

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of ``NAME.csv`` as text, measurements under the names of today."""
        if name not in self._tables:
            rows = read_table(self.path / f"{name}.csv")
            self._tables[name] = [
                {**row, "metric": current_name(row["metric"])} if "metric" in row else row for row in rows
            ]
        return self._tables[name]

    @property
    def seed(self) -> int:
        """Of training."""
        return int(number(self.about.get("seed")) or 0)

    @property
    def images(self) -> int:
        """Images seen in training."""
        return int(number(self.about.get("images")) or 0)

    @property
    def published(self) -> bool:
        """Of a model that was not trained here; then there is no run."""
        return self.about.get("published") is True

    @property
    def run(self) -> Path:
        """The folder of the run it belongs to; its own where there is none."""
        return self.path.resolve() if self.published else run_of(self.path)


def run_of(folder: Path) -> Path:
    """The run folder of ``RUN/evaluation/NAME``."""
    return folder.resolve().parent.parent


def read_evaluation(run: str | Path, name: str | None = None) -> EvaluationFolder:
    """The newest finished evaluation of a run (most images seen, then latest), or the one called ``name``.

    ``run`` may also be the folder of an evaluation itself.

    Raises:
        UserError: no such folder, or it has no (such) evaluation.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"No run folder at {run}.")
    if (run / names.ABOUT).is_file():
        return _open(run)
    found = sorted(run.glob(f"{names.EVALUATIONS}/*/{names.ABOUT}"))
    if name is not None:
        chosen = inside(run, f"{names.EVALUATIONS}/{name}")
        if not (chosen / names.ABOUT).is_file():
            there = ", ".join(file.parent.name for file in found) or "none"
            raise UserError(f"{run} has no evaluation {name!r} (there: {there}): `lightning evaluate all --run {run}`.")
        return _open(chosen)
    if not found:
        raise UserError(f"{run} has not been evaluated: run `lightning evaluate all --run {run}` first.")
    evaluations = [_open(file.parent) for file in found]
    return max(evaluations, key=lambda one: (one.images, (one.path / names.ABOUT).stat().st_mtime))


def _open(folder: Path) -> EvaluationFolder:
    file = folder / names.ABOUT
    about = read_record(file, "evaluate again")
    # what lies two folders above a published model's evaluation has nothing to do with it
    return EvaluationFolder(folder, about, {} if about.get("published") is True else _settings(folder))


def _settings(folder: Path) -> dict[str, object]:
    """The parts of the run's configuration that make two runs differ by more than their seed."""
    file = run_of(folder) / names.CONFIG
    if not file.is_file():
        return {}
    try:
        config = parse_config(read_text(file))
    except (UserError, yaml.YAMLError):
        return {}
    return {part: config.get(part) for part in ("model", "data")} if config else {}
