"""W&B in trouble while a run trains: a full disk, its own process gone. Training goes on without it. Source: own."""

import sys
from collections.abc import Callable

from lightning.pytorch.loggers import WandbLogger

from meddiff.common.progress import say

#: Mark of a logger to which nothing is sent any more.
GIVEN_UP = "wandb_given_up"


def finish_wandb() -> None:
    """End this process's run of W&B, so that the next one gets a run of its own; what fails then fails no training."""
    if "wandb" not in sys.modules:
        return
    try:
        sys.modules["wandb"].finish()
    except Exception as error:  # its own process is gone, and with it whatever it says then
        say(f"W&B did not end properly ({' '.join(str(error).split())}): metrics.jsonl and the report have everything")


def unless_in_trouble(logger: WandbLogger, send: Callable[[], None]) -> None:
    """Call ``send``; if it fails, a line says why, and from then on nothing is sent to this logger.

    ``metrics.jsonl`` and the run folder have everything all the same.
    """
    import wandb

    if getattr(logger, GIVEN_UP, False):
        return
    try:
        send()
    except (wandb.errors.Error, OSError) as error:
        give_up(logger, error)


def give_up(logger: WandbLogger, error: Exception) -> None:
    """Send nothing more to this logger, and say why."""
    setattr(logger, GIVEN_UP, True)
    why = " ".join(str(error).split()) or type(error).__name__
    say(f"W&B gave up ({why}): training goes on without it; metrics.jsonl and the report have everything")
