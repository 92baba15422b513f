"""The trained model as a diffusers folder at the end of a fit, so that another run can start from it."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import model_of
from meddiff.models.patronus import refuse_pipeline
from meddiff.models.weights.export import write_model
from meddiff.shards.batches import TokenBatch


class ModelExport(Callback):
    """Writes ``RUN/<folder>/{unet,text_encoder,scheduler}`` when training is over.

    Args:
        folder: name inside the run folder.
        half: store float16.
        ema: write the averaged weights instead of the raw ones.
        seen_rows_only: keep only the token embeddings that a caption used or the tower's own file held; the others are drawn
            again from seed 0 by whoever loads the folder (they were never trained).
    """

    def __init__(
        self, folder: str = "model", half: bool = True, ema: bool = False, seen_rows_only: bool = False
    ) -> None:
        super().__init__()
        self.folder, self.half, self.ema, self.seen_rows_only = folder, half, ema, seen_rows_only
        self.seen: torch.Tensor | None = None  # bool (vocabulary), which token embeddings have been trained

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """
        Raises:
            UserError: the first process, which writes, has only its piece of the weights.
        """
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise UserError(
                "ModelExport: no process has all weights with this strategy: leave it out, and write them afterwards with "
                "`lightning export --run RUN`."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """
        Raises:
            UserError: a model that the folder has no place for.
        """
        refuse_pipeline(model_of(pl_module))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TokenBatch, batch_idx: int
    ) -> None:
        if not self.seen_rows_only:
            return
        if self.seen is None:
            tower = model_of(pl_module).text_encoder
            self.seen = torch.zeros(int(tower.token_table.num_embeddings), dtype=torch.bool)
            stored = getattr(tower, "stored_rows", None)
            if isinstance(stored, torch.Tensor):
                self.seen[stored.cpu()] = True
        self.seen[batch["tokens"].flatten().cpu()] = True

    def state_dict(self) -> dict[str, object]:
        return {} if self.seen is None else {"seen": self.seen.nonzero().flatten().tolist(), "rows": len(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.seen = torch.zeros(state_dict["rows"], dtype=torch.bool)
            self.seen[state_dict["seen"]] = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        rows = None if self.seen is None else self.seen.nonzero().flatten()
        model = model_of(pl_module)
        with model.weights(ema=self.ema):
            write_model(
                Path(trainer.default_root_dir) / self.folder,
                model.unet,
                model.text_encoder,
                model.noise_schedule.config,
                rows,
                half=self.half,
            )
