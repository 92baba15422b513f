"""All that was measured at one moment as one row of every logger: curves of two measurements meet only there. Source: own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger
from PIL import Image

from callbacks.gate import NumbersOnly
from callbacks.media import Media
from callbacks.tracking import JsonlLogger
from callbacks.wandb_rows import best_values, log_to_wandb
from meddiff.reports.page.wording import direction, parts
from meddiff.runs.folder import Run
from meddiff.runs.values import nested, number

#: Scores of grounding whose controls are logged beside them; the others stand in ``controls.json``.
BESIDE = ("cnr", "auroc", "top1")
#: Evaluations so far: images trained on, and the figures.
Evaluations = list[tuple[int, Mapping[str, float]]]


def log_moment(
    trainer: Trainer, images: int, figures: Mapping[str, float], media: Sequence[Media], earlier: Evaluations
) -> None:
    """Log what was measured after ``images``: one row a logger. Rank 0 only.

    ``metrics.jsonl`` gets the figures alone; other loggers get beside them what they must be read against (as
    ``grounding/prior/macro_cnr``: the same number at every evaluation, so that it is a line in the chart), and those that
    take pictures and tables get these. What of a credentialed cohort may not go out, the gate has dropped or drops.

    Args:
        figures: name -> value.
        media: pictures and tables of the evaluations that ran.
        earlier: evaluations of this run so far; this one is added.
    """
    run = Run(Path(trainer.default_root_dir))
    if not earlier:  # of a run that goes on, what it has measured before
        earlier += [(one.images, one.values) for one in run.evaluations if one.images < images]
    if figures:
        earlier.append((images, dict(figures)))
    row = {**figures, "images": float(images)}
    beside = controls_beside(run, figures)
    for logger in trainer.loggers:
        if isinstance(logger, JsonlLogger):
            if figures:
                logger.log_metrics(row, trainer.global_step)
        elif isinstance(logger, WandbLogger):
            log_to_wandb(logger, {**row, **beside}, media, earlier, trainer.global_step)
        else:
            if figures:
                logger.log_metrics({**row, **beside}, trainer.global_step)
            if isinstance(logger, NumbersOnly):
                logger.log_summary(best_values(earlier))
            _log_pictures(logger, media, trainer.global_step)


def controls_beside(run: Run, figures: Mapping[str, float]) -> dict[str, float]:
    """Of ``controls.json`` what belongs to the headline ``figures``, as ``SIDE/CONTROL/NAME``; single classes have none."""
    found = {}
    for key in figures:
        side, _, name = key.partition("/")
        if "/" in name or not direction(key) or (side == "grounding" and parts(name)[0] not in BESIDE):
            continue
        measured = run.controls.get(side)
        if not isinstance(measured, dict):
            continue
        # grounding: control -> name -> number; fidelity: name -> control -> number
        named = measured.get(name)
        controls = named if side == "fidelity" and isinstance(named, dict) else measured
        for control in controls:
            value = number(nested(measured, *((name, control) if side == "fidelity" else (control, name))))
            if value is not None:
                found[f"{side}/{control}/{name}"] = value
    return found


def _log_pictures(logger: Logger, media: Sequence[Media], step: int) -> None:
    """To a logger of Lightning's that takes images."""
    if not hasattr(logger, "log_image"):
        return
    for one in media:
        for name, pictures in one.pictures.items():
            images = [Image.fromarray(picture.pixels) for picture in pictures]
            if images:
                logger.log_image(name, images, step=step, caption=[picture.caption for picture in pictures])
