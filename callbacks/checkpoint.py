"""Checkpoints in the run folder, at intervals counted in images."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.evaluation import interval_in_steps
from meddiff.common.errors import UserError


class RunCheckpoint(ModelCheckpoint):
    """Full training state every so many images and at the end, as ``RUN/checkpoints/step-N.ckpt``.

    Args:
        every_n_images: interval; a multiple of the global batch size. Null: at the end only.
        keep_all: false keeps only the newest one (a full SDv2 state takes about 15 GB).
    """

    def __init__(self, every_n_images: int | None = None, keep_all: bool = True) -> None:
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
        self.every_n_images = every_n_images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.every_n_images is not None:
            self._every_n_train_steps = interval_in_steps(self, self.every_n_images, trainer)
        else:
            self._every_n_train_steps = self._every_n_epochs = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end is always worth a checkpoint, whatever the interval."""
        if self._last_global_step_saved != trainer.global_step and not self._skip(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    @staticmethod
    def _skip(trainer: Trainer) -> bool:
        return bool(getattr(trainer, "fast_dev_run", False)) or trainer.sanity_checking
