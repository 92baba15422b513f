"""Checkpoints in the run folder, at intervals counted in images."""

import os
import re
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.evaluation import interval_in_steps
from callbacks.step_boundary import as_at_batch_end, call_between_steps, call_no_more
from callbacks.tracking import JsonlLogger
from callbacks.wandb_artifacts import send_checkpoints, sends_checkpoints
from meddiff.common.errors import UserError


class RunCheckpoint(ModelCheckpoint):
    """Full training state every so many images and at the end, as ``RUN/checkpoints/step-N.ckpt``.

    Written between two steps, when everything of the step is logged (:mod:`callbacks.step_boundary`).

    Args:
        every_n_images: interval; a multiple of the global batch size. Null: at the end only.
        keep_all: false keeps only the newest one (a full SDv2 state takes about 15 GB). The old one is removed when the
            new one is on the disk.
        wandb_artifacts: send the last checkpoint, and the best of either side where they are kept, to W&B when training
            ends. Of a credentialed cohort only with ``--allow_media_upload true``.
    """

    def __init__(self, every_n_images: int | None = None, keep_all: bool = True, wandb_artifacts: bool = False) -> None:
        super().__init__(
            filename="step-{step:08d}",
            auto_insert_metric_name=False,
            save_top_k=-1 if keep_all else 1,
            save_last="link",
            every_n_train_steps=None if every_n_images is None else 1,  # set when the batch size is known
            every_n_epochs=None,
            enable_version_counter=False,
        )
        if every_n_images is not None and every_n_images <= 0:
            raise UserError(f"RunCheckpoint: every_n_images is {every_n_images}; it must be positive, or null.")
        self.every_n_images, self.wandb_artifacts = every_n_images, wandb_artifacts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.every_n_images is not None:
            self._every_n_train_steps = interval_in_steps(self, self.every_n_images, trainer)
        else:
            self._every_n_train_steps = self._every_n_epochs = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        call_between_steps(trainer)
        if self.wandb_artifacts:
            self.wandb_artifacts = sends_checkpoints(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Nothing yet: the step's row is not logged and its validation has not run."""

    def on_step_boundary(self, trainer: Trainer) -> None:
        """Write one if it is due."""
        due = self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0
        if due and not self._should_skip_saving_checkpoint(trainer):
            self.save_between_steps(trainer)

    def save_between_steps(self, trainer: Trainer) -> None:
        """Write the state after the step that has just ended; on every rank."""
        with as_at_batch_end(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end is always worth a checkpoint, whatever the interval."""
        if self._last_global_step_saved != trainer.global_step and not self._skip(trainer):
            self._save(trainer)
        if self.wandb_artifacts and not trainer.interrupted and trainer.is_global_zero and not self._skip(trainer):
            send_checkpoints(trainer, self._kept())

    def _kept(self) -> dict[int, Path]:
        """Optimiser steps -> checkpoint, of those that are there."""
        files = Path(self.dirpath or ".").glob("step-*.ckpt")
        return {int(match[1]): file for file in files if (match := re.fullmatch(r"step-(\d+)\.ckpt", file.name))}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            call_no_more(trainer)

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, JsonlLogger):
                logger.sync()  # a power cut must not take rows that a resumed run will not write again
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)

    @staticmethod
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:
        """As Lightning's, in one move: there is no moment without ``last.ckpt``."""
        folder = os.path.isdir(linkpath) and not os.path.islink(linkpath)
        if trainer.is_global_zero and not folder and filepath != linkpath:
            beside = Path(linkpath).with_name(f".{Path(linkpath).name}.new")
            try:
                beside.unlink(missing_ok=True)
                beside.symlink_to(os.path.relpath(filepath, os.path.dirname(linkpath)))
                os.replace(beside, linkpath)
            except OSError:  # a file system without links
                ModelCheckpoint._link_checkpoint(trainer, filepath, linkpath)
                return
            trainer.strategy.barrier()
        else:
            ModelCheckpoint._link_checkpoint(trainer, filepath, linkpath)

    @staticmethod
    def _skip(trainer: Trainer) -> bool:
        return bool(getattr(trainer, "fast_dev_run", False)) or trainer.sanity_checking
