"""What may leave the machine: of credentialed cohorts numbers only. Every logger of a run stands behind this one gate.

A logger behind the gate takes numbers and nothing else, whoever calls it: an evaluation, the model, Lightning, somebody's
own callback. What is let through is listed; anything not listed is dropped, so that a way to log that nobody has thought
of is closed too. Source: own.
"""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.tracking import JsonlLogger
from meddiff.common.errors import UserError
from meddiff.common.progress import say
from meddiff.runs import names
from meddiff.shards.access import Access, credentialed_titles

#: What W&B itself would record of the machine, the command line, the program and the terminal.
NOTHING_OF_ITS_OWN = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "withheld",
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
}
#: Methods of an experiment (W&B's run, TensorBoard's writer) that take a name and a number, or names and numbers.
NUMERIC = ("log", "add_scalar", "add_scalars", "define_metric")
#: Functions and objects of the module ``wandb`` that would go past the logger.
PAST_THE_LOGGER = ("log_artifact", "log_model", "link_model", "save", "alert", "config", "summary")


def number_of(value: object) -> float | int | bool | None:
    """A number, or an array or tensor of one element; None for anything else.

    Example:
        >>> number_of(2), number_of(torch.tensor(0.5)), number_of("effusion"), number_of([1.0])
        (2, 0.5, None, None)
    """
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Number) or (hasattr(value, "item") and getattr(value, "size", None) == 1):
        value = value.item() if hasattr(value, "item") else value
    elif isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, bool | int | float) else None


def numbers_within(tree: object) -> object:
    """The numbers of nested mappings and lists under their names; what holds none is gone (None).

    Example:
        >>> numbers_within({"lr": 1e-4, "vae": "/data/vae", "data": {"sizes": [8, 16], "words": ["edema"]}})
        {'lr': 0.0001, 'data': {'sizes': [8, 16]}}
    """
    tree = vars(tree) if isinstance(tree, Namespace) else tree
    if isinstance(tree, Mapping):
        found = {str(name): numbers_within(value) for name, value in tree.items()}
        return {name: value for name, value in found.items() if value is not None} or None
    if isinstance(tree, list | tuple):
        values = [number_of(value) for value in tree]
        return None if not values or None in values else values
    return number_of(tree)


class _Nothing:
    """Takes every call, item and attribute and does nothing: own code that logs pictures must not end a training."""

    def __call__(self, *_: object, **__: object) -> Self:
        return self

    def __getattr__(self, name: str) -> Self:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __setattr__(self, name: str, value: object) -> None:
        pass

    def __getitem__(self, name: object) -> Self:
        return self

    def __setitem__(self, name: object, value: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class NumbersOnlyExperiment:
    """W&B's run, TensorBoard's writer, ... as own code sees it: :data:`NUMERIC` take numbers, all else does nothing."""

    def __init__(self, experiment: object) -> None:
        object.__setattr__(self, "_experiment", experiment)

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._experiment, name, None)
        if isinstance(value, str | int | float):
            return value  # id, name, url, step: read, not sent
        if name not in NUMERIC or not callable(value):
            return _Nothing()

        def numeric(what: object, *rest: object, **more: object) -> None:
            if isinstance(what, Mapping):
                what = numbers_of(what)
            kept = [numbers_of(one) if isinstance(one, Mapping) else number_of(one) for one in rest]
            if what and (None not in kept or name == "define_metric"):
                value(what, *(one for one in kept if one is not None), **_plain(more))

        return numeric

    def __setattr__(self, name: str, value: object) -> None:
        """Nothing is set: notes and tags are texts."""


def numbers_of(row: Mapping[str, object]) -> dict[str, float | int | bool]:
    """The entries of a row that are numbers."""
    found = {str(name): number_of(value) for name, value in row.items()}
    return {name: value for name, value in found.items() if value is not None}


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    """Options of a call: numbers, and the names of axes that ``define_metric`` takes."""
    found = {name: number_of(value) for name, value in options.items()}
    axes = {name: options[name] for name in ("step_metric", "summary") if isinstance(options.get(name), str)}
    return {**{name: value for name, value in found.items() if value is not None}, **axes}


class NumbersOnly(Logger):
    """A logger behind the gate.

    Args:
        logger: any of Lightning's; W&B's is also kept from recording machine, command line, packages, code and terminal.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger
        self._experiment: NumbersOnlyExperiment | None = None
        if isinstance(logger, WandbLogger):
            _close_wandb(logger)

    @property
    def name(self) -> str | None:
        return self._logger.name

    @property
    def version(self) -> int | str | None:
        return self._logger.version

    @property
    def save_dir(self) -> str | None:
        return self._logger.save_dir

    @property
    def root_dir(self) -> str | None:
        return self._logger.root_dir

    @property
    def log_dir(self) -> str | None:
        return self._logger.log_dir

    @property
    def group_separator(self) -> str:
        return self._logger.group_separator

    @property
    def experiment(self) -> object:
        """What own code logs to beside Lightning; on ranks that log nothing, the logger's own stand-in."""
        found = getattr(self._logger, "experiment", None)
        if found is None or getattr(rank_zero_only, "rank", 0) != 0:
            return found
        if self._experiment is None:
            self._experiment = NumbersOnlyExperiment(found)
            if isinstance(self._logger, WandbLogger):
                _close_wandb_module(self._experiment)
        return self._experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        _ = self.experiment  # closes what goes past the logger as soon as there is a run
        self._logger.log_metrics(numbers_of(metrics), step)

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *_: object, **__: object) -> None:
        numbers = numbers_within(params)
        if isinstance(numbers, dict):
            self._logger.log_hyperparams(numbers)

    def log_summary(self, values: Mapping[str, float]) -> None:
        getattr(self._logger, "log_summary", _Nothing())(numbers_of(values))

    def save(self) -> None:
        self._logger.save()

    def finalize(self, status: str) -> None:
        self._logger.finalize(status)

    def __getattr__(self, name: str) -> _Nothing:
        """``log_image``, ``log_table``, ``log_text``, ``watch``, ...: do nothing, where the logger has them."""
        if name.startswith("_") or not callable(getattr(self._logger, name)):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return _Nothing()


def _close_wandb(logger: WandbLogger) -> None:
    """Settings under which W&B records nothing by itself; those of the logger that say where it writes stay."""
    import wandb

    options = logger._wandb_init
    given = options.get("settings") or {}
    settings = wandb.Settings(**given) if isinstance(given, Mapping) else given.model_copy()
    for name, value in NOTHING_OF_ITS_OWN.items():
        setattr(settings, name, value)
    options["settings"] = settings
    options["config"] = numbers_within(options.get("config"))
    for name in ("sync_tensorboard", "save_code", "monitor_gym"):
        options.pop(name, None)
    logger._log_model = False
    # its reports of its own crashes carry local variables
    os.environ["WANDB_ERROR_REPORTING"] = "false"


def _close_wandb_module(experiment: NumbersOnlyExperiment) -> None:
    """``wandb.log`` takes numbers too, and what would go past the logger does nothing, until the run is finished."""
    import wandb

    for name in PAST_THE_LOGGER:
        setattr(wandb, name, _Nothing())
    setattr(wandb, "log", experiment.log)  # noqa: B010 (declared as another kind of function)


def cohorts_of(datamodule: object) -> list[tuple[str, Access]]:
    """Name and access of all that a data module reads; one that does not say it is taken for credentialed."""
    ask = getattr(datamodule, "cohorts", None)
    try:
        return list(ask()) if callable(ask) else [(f"what {type(datamodule).__name__} reads", "credentialed")]
    except UserError:  # told when the data are opened; until then nothing may go out
        return [(f"what {type(datamodule).__name__} reads", "credentialed")]


def gated(
    loggers: Sequence[Logger], cohorts: Sequence[tuple[str, Access]], run_dir: Path, allowed: bool = False
) -> list[Logger]:
    """The loggers of a run, behind the gate if any of its cohorts is credentialed; says so in one line.

    Args:
        cohorts: name and access of each that is read, for training or for an evaluation.
        run_dir: where the pictures stay.
        allowed: somebody who may has said that they may be sent: the line says that.
    """
    titles = credentialed_titles(cohorts)
    if not titles:
        return list(loggers)
    # metrics.jsonl takes numbers only and lies in the run folder
    others = [one for one in loggers if not isinstance(one, JsonlLogger | NumbersOnly)]
    if others:
        _say(titles, others, run_dir, allowed)
    for one in others:
        setattr(one, ALLOWED, allowed)
    return [NumbersOnly(one) if one in others and not allowed else one for one in loggers]


#: Mark of a logger that may take pictures although a cohort is credentialed.
ALLOWED = "media_upload_allowed"


def gate_of(trainer: Trainer) -> None:
    """Put the loggers of a trainer that was built by hand behind the gate; the command has done it at the start."""
    if not all(isinstance(one, JsonlLogger | NumbersOnly) or getattr(one, ALLOWED, False) for one in trainer.loggers):
        cohorts = cohorts_of(getattr(trainer, "datamodule", None))
        trainer.loggers = gated(trainer.loggers, cohorts, Path(trainer.default_root_dir))


@rank_zero_only
def _say(titles: Sequence[str], loggers: Sequence[Logger], run_dir: Path, allowed: bool) -> None:
    who = f"{' and '.join(titles)} {'is' if len(titles) == 1 else 'are'} credentialed"
    to = ", ".join("W&B" if isinstance(one, WandbLogger) else type(one).__name__ for one in loggers)
    if allowed:
        say(f"{who}: pictures, captions and keys go to {to} because --allow_media_upload is true")
    else:
        say(
            f"{who}: pictures, captions and keys stay in {run_dir / names.MEDIA}; only numbers go to {to}; "
            f"--allow_media_upload true changes that"
        )
