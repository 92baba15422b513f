"""Checkpoints as artifacts of W&B: the last one, and the best of either side. Source: own (Lightning's `log_model`)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from callbacks.gate import NumbersOnly
from callbacks.wandb_files import kept_beside
from callbacks.wandb_rows import sides
from callbacks.wandb_trouble import unless_in_trouble
from meddiff.common.progress import say
from meddiff.reports.page.wording import direction
from meddiff.runs.folder import Evaluation, Run


def sends_checkpoints(trainer: Trainer) -> bool:
    """Whether there is a logger that takes them; where there is none, a line says why."""
    if any(isinstance(one, WandbLogger) for one in trainer.loggers):
        return True
    if trainer.is_global_zero:
        behind = any(isinstance(one, NumbersOnly) for one in trainer.loggers)
        why = (
            "a cohort is credentialed and --allow_media_upload is not true"
            if behind
            else "this run has no logger of W&B"
        )
        say(f"checkpoint.wandb_artifacts: checkpoints stay in the run folder, {why}")
    return False


def send_checkpoints(trainer: Trainer, files: Mapping[int, Path]) -> None:
    """Send the last checkpoint and the best of either side, each once, with what was measured of it. Rank 0 only.

    Args:
        files: optimiser steps -> checkpoint, of those that are there.
    """
    evaluations = Run(Path(trainer.default_root_dir)).evaluations
    aliases = choose(sorted(files), evaluations)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for step, names in aliases.items():
                measured = next((one for one in evaluations if one.step == step), None)
                unless_in_trouble(logger, lambda: _send(logger, files[step], step, names, measured))  # noqa: B023 (called now)


def choose(steps: Sequence[int], evaluations: Sequence[Evaluation]) -> dict[int, list[str]]:
    """Step of a checkpoint -> its aliases: ``last``, ``best_cnr`` and ``best_distance`` among those that were evaluated.

    The last one comes last: W&B calls it ``latest``.

    Example:
        >>> rows = [Evaluation(2, 16, {"grounding/cnr": 0.4, "fidelity/fd_domain": 9.0}),
        ...         Evaluation(4, 32, {"grounding/cnr": 0.3, "fidelity/fd_domain": 5.0})]
        >>> choose([2, 4, 6], rows)
        {2: ['best_cnr'], 4: ['best_distance'], 6: ['last']}
    """
    if not steps:
        return {}
    found: dict[int, list[str]] = {}
    cnr, distance = sides([(one.images, one.values) for one in evaluations])
    for name, key in (("best_cnr", cnr), ("best_distance", distance)):
        measured = [(direction(key) * one.values[key], one.step) for one in evaluations if key in one.values]
        kept = [(value, step) for value, step in measured if step in steps and math.isfinite(value)]
        if kept:
            found.setdefault(max(kept)[1], []).append(name)
    return {
        **{step: names for step, names in found.items() if step != steps[-1]},
        steps[-1]: [*found.get(steps[-1], []), "last"],
    }


def _send(logger: WandbLogger, file: Path, step: int, aliases: Sequence[str], measured: Evaluation | None) -> None:
    import wandb

    run = logger.experiment
    metadata: dict[str, object] = {"step": step, "file": file.name}
    if measured is not None:
        metadata |= {"images": measured.images, **measured.values}
    artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model", metadata=metadata)
    # read where it lies: a copy of a full state is 15 GB more
    add = artifact.add_dir if file.is_dir() else artifact.add_file
    add(str(file.resolve()), name=file.name, policy="immutable", skip_cache=True)
    with kept_beside(run):
        run.log_artifact(artifact, aliases=list(aliases))
