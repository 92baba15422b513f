"""What the trainer is asked for and cannot do, told from the configuration alone. Source: own."""

import re
from collections.abc import Sequence

from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint

from meddiff.cli.quick_check import no_gpu_sentence
from meddiff.common.bounds import OF_TRAINER
from meddiff.common.ranges import range_problems


def trainer_problems(verb: str, trainer: Namespace, data: type | None, callbacks: Sequence[type | None]) -> list[str]:
    """One sentence for each option that this machine, an endless stream or the run folder does not allow.

    Args:
        verb: fit, validate, test or predict.
        trainer: the parsed options of the trainer.
        data: class of the data module; one whose training stream has no end says so (``endless = True``).
        callbacks: classes of the callbacks, listed and by name.
    """
    problems = range_problems({name: trainer.get(name) for name in OF_TRAINER}, OF_TRAINER, "trainer.")
    devices = trainer.get("devices")
    if isinstance(devices, str) and not re.fullmatch(r"auto|-?\d+|\d+(\s*,\s*\d+)*,?", devices):
        problems.append(f"trainer.devices is {devices!r}; it must be auto, a number, or numbers of GPUs such as 0,1.")
    if verb == "fit":
        if trainer.get("max_steps", -1) in (-1, None) and not trainer.get("fast_dev_run"):
            problems.append("The training stream is endless: say how long with --trainer.max_steps N.")
        if getattr(data, "endless", False):
            problems += _of_no_end(trainer)
        saving = any(kind is not None and issubclass(kind, ModelCheckpoint) for kind in callbacks)
        if trainer.get("enable_checkpointing") is False and saving:
            problems.append(
                "trainer: enable_checkpointing is false and a callback writes checkpoints: leave the option out, or set "
                "`checkpoint: null` and take ModelCheckpoint out of trainer.callbacks."
            )
    if trainer.get("barebones"):
        problems.append(
            "trainer: barebones forbids what a run is made of (metrics.jsonl, checkpoints, the progress bar): leave it out."
        )
    if trainer.get("accelerator") in ("gpu", "cuda"):
        import torch

        wanted, there = trainer.get("devices"), torch.cuda.device_count()
        if there == 0 or (isinstance(wanted, int) and wanted > there):
            problems.append(no_gpu_sentence(wanted, there))
    return problems


def cuts_weights(strategy: object) -> bool:
    """Whether a strategy of this name or class path shares weights among GPUs."""
    return any(part in str(strategy).lower() for part in ("fsdp", "fullysharded", "modelparallel"))


def _of_no_end(trainer: Namespace) -> list[str]:
    """Shares of an epoch, where there is no epoch to take them of."""
    problems = []
    for name in ("val_check_interval", "limit_train_batches", "overfit_batches"):
        value = trainer.get(name)
        # 1.0 and 0.0 are Lightning's words for "all" and "none", but validation after "all" would never come.
        allowed = name != "val_check_interval" and value in (0.0, 1.0)
        if isinstance(value, float) and not allowed:
            unit = "steps" if name == "val_check_interval" else "batches"
            problems.append(
                f"trainer: {name} is {value}, a share of an epoch, and the training stream is endless: give a number of "
                f"{unit}."
            )
    if trainer.get("check_val_every_n_epoch") is not None:
        problems.append(
            "trainer: check_val_every_n_epoch waits for the end of an epoch, and the training stream is endless: leave it "
            "out and give val_check_interval in steps."
        )
    return problems
