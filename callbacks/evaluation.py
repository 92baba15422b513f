"""What all evaluations during training share: when they run, and that training does not notice. Source: own."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from meddiff.common.errors import UserError
from meddiff.evaluation.undisturbed import undisturbed


def images_seen(trainer: Trainer) -> int:
    """Images the optimiser has consumed, over all ranks: the x-axis of every curve."""
    datamodule = getattr(trainer, "datamodule", None)
    consumed = getattr(datamodule, "images_consumed", None)
    return int(trainer.global_step * getattr(datamodule, "batch_size", 1) if consumed is None else consumed)


def interval_in_steps(owner: Callback, every_n_images: int, trainer: Trainer) -> int:
    """Optimiser steps in ``every_n_images``.

    Raises:
        UserError: no multiple of the batch size.
    """
    batch_size = int(getattr(getattr(trainer, "datamodule", None), "batch_size", 1))
    if every_n_images % batch_size:
        raise UserError(
            f"{type(owner).__name__}: every_n_images is {every_n_images}, which is no multiple of the batch size "
            f"{batch_size}: take {max(1, every_n_images // batch_size) * batch_size}."
        )
    return every_n_images // batch_size


class EvaluationCallback(Callback):
    """Runs :meth:`evaluate` at step 0, then every so many images, and at the end of training; once under ``validate``.

    Subclasses return their figures under the names they are logged by; this class logs them, keeps them for the
    trade-off row, and leaves gradients, modes, random generators and attention processors as it found them.

    Args:
        every_n_images: interval in images of the whole run, a multiple of the batch size.
    """

    def __init__(self, every_n_images: int) -> None:
        super().__init__()
        if every_n_images <= 0:
            raise UserError(f"{type(self).__name__}: every_n_images is {every_n_images}; it must be positive.")
        self.every_n_images = every_n_images
        self.latest: dict[str, float] = {}
        self.latest_images = -1
        self.seconds = 0.0
        self._last_images = 0

    #: The split that is evaluated; set by subclasses that read one.
    split: str

    # ---- for subclasses -----------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, module: Any, images: int) -> dict[str, float]:
        """The figures, the same on every rank."""
        raise NotImplementedError

    def forward_passes(self, trainer: Trainer, module: Any) -> float:
        """U-Net forward passes of one evaluation over all ranks, to state its cost before it is paid."""
        return 0.0

    def dataset(self, trainer: Trainer) -> Any:
        """The stored samples of ``self.split``.

        Raises:
            UserError: the data module has none (streamed shards, images).
        """
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not hasattr(datamodule, "dataset"):
            raise UserError(f"{type(self).__name__} needs a data module over latent shards (LatentShardsDataModule).")
        return datamodule.dataset(self.split)

    # ---- when ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what is wrong before training starts."""
        if stage == "fit":
            interval_in_steps(self, self.every_n_images, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_images = images_seen(trainer)
        if self._last_images == 0 and not getattr(trainer, "fast_dev_run", False):
            self.run(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        images = images_seen(trainer)
        # a micro-batch that does not end an optimiser step leaves the count as it was
        due = images // self.every_n_images > self._last_images // self.every_n_images
        self._last_images = images
        if due:
            self.run(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stopped = trainer.interrupted or getattr(trainer, "fast_dev_run", False)
        if not stopped and self.latest_images != images_seen(trainer):
            self.run(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # `lightning validate`, not the validation of a fit
            self.run(trainer, pl_module)

    def run(self, trainer: Trainer, module: Any) -> None:
        """Evaluate now, log, and remember."""
        start = time.monotonic()
        images = images_seen(trainer)
        with undisturbed(module):
            self.latest = self.evaluate(trainer, module, images)
        self.latest_images = images
        self.seconds += time.monotonic() - start
        if trainer.is_global_zero and self.latest:
            for logger in trainer.loggers:
                logger.log_metrics({**self.latest, "images": float(images)}, step=trainer.global_step)


def evaluations(trainer: Trainer) -> list[EvaluationCallback]:
    """The evaluation callbacks of a trainer, in order."""
    return [one for one in trainer.callbacks if isinstance(one, EvaluationCallback)]  # type: ignore[attr-defined]
