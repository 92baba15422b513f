"""Callbacks that send their own process a signal, and one that looks at the rows when a checkpoint is written."""

import os
import signal
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT


class Signaller(Callback):
    """Sends signal ``name`` to this process in the middle of step ``step`` (counted from 1), on ``rank`` alone."""

    def __init__(self, name: str, step: int, rank: int = 0) -> None:
        self.name, self.step, self.rank = name, step, rank

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), getattr(signal, self.name))


class EarlySignaller(Callback):
    """Sends signal ``name`` to this process before training begins."""

    def __init__(self, name: str) -> None:
        self.name = name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        os.kill(os.getpid(), getattr(signal, self.name))


class RowsAtCheckpoints(Callback):
    """Writes down how many rows ``metrics.jsonl`` has whenever a checkpoint is made: "STEP ROWS" a line."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        run = Path(trainer.default_root_dir)
        rows = (run / "metrics.jsonl").read_text().count("\n")
        with (run / "rows.txt").open("a") as stream:
            stream.write(f"{trainer.global_step} {rows}\n")
