"""A module whose loss or gradient is not finite at one place (also started by the command, in several processes)."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules import LatentDiffusionModule
from meddiff.shards.batches import TokenBatch


class PoisonedModule(LatentDiffusionModule):
    """As the real one, but for one micro-batch of some steps.

    Args:
        at: optimiser step, or several.
        rank: process.
        micro_batch: which of the step's.
        what: the loss itself, or only its gradient.
        arguments: of the real module.
    """

    def __init__(
        self,
        at: int | list[int],
        rank: int = 0,
        micro_batch: int = 0,
        what: Literal["loss", "gradient"] = "loss",
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.at = [at] if isinstance(at, int) else at
        self.rank, self.micro_batch, self.what = rank, micro_batch, what
        self.poisoned_keys: list[str] = []

    def denoising_loss(self, batch: TokenBatch) -> Tensor:
        loss = super().denoising_loss(batch)
        here = self.trainer.global_step in self.at and self.global_rank == self.rank
        if not here or not self.trainer.training or self._micro != self.micro_batch:
            return loss
        self.poisoned_keys = list(batch["key"])
        if self.what == "loss":
            return loss * torch.nan
        return loss + (loss.sum() * 0).sqrt()  # the root's slope at 0 is infinite

    @property
    def _micro(self) -> int:
        return int(self.trainer.fit_loop.epoch_loop.batch_idx % self.trainer.accumulate_grad_batches)
