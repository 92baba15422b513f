"""Between two optimiser steps: everything of the one is done and logged, nothing of the next has begun. Source: own.

Why not ``on_train_batch_end``: there the step's row is not logged and its validation has not run, so a run killed just
after a checkpoint would lose them for good. Why not ``on_train_batch_start``: there the next batch has been prepared (its
captions are counted).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from lightning.pytorch import Trainer


@runtime_checkable
class HeedsSteps(Protocol):
    """A callback that is called between steps."""

    def on_step_boundary(self, trainer: Trainer) -> None: ...


def call_between_steps(trainer: Trainer) -> None:
    """From now on ``on_step_boundary(trainer)`` of callbacks is called after each optimiser step, in their order.

    Lightning has no hook there, so the last part of its loop over batches is wrapped; calling this again is harmless.
    """
    loop = trainer.fit_loop.epoch_loop
    if "on_advance_end" in vars(loop):
        return
    plain, done = loop.on_advance_end, [trainer.global_step]

    def on_advance_end(*args: object) -> None:
        plain(*args)  # type: ignore[arg-type]  # passed on as Lightning gives them
        if trainer.global_step != done[0]:
            done[0] = trainer.global_step
            callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]  # not declared
            for callback in callbacks:
                if isinstance(callback, HeedsSteps):
                    callback.on_step_boundary(trainer)

    vars(loop)["on_advance_end"] = on_advance_end


def call_no_more(trainer: Trainer) -> None:
    """Undo :func:`call_between_steps`."""
    vars(trainer.fit_loop.epoch_loop).pop("on_advance_end", None)


@contextmanager
def as_at_batch_end(trainer: Trainer) -> Iterator[None]:
    """The loop's counters as they stand in ``on_train_batch_end``.

    From a checkpoint with these counters Lightning goes on with the next batch. From one with the counters of a finished
    batch it would, at a step with validation, count that step twice.
    """
    loop = trainer.fit_loop.epoch_loop
    counters = (loop.batch_progress.total, loop.batch_progress.current)
    for counter in counters:
        counter.completed -= 1
    loop._batches_that_stepped -= 1
    try:
        yield
    finally:
        for counter in counters:
            counter.completed += 1
        loop._batches_that_stepped += 1
