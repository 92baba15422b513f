"""The small autoencoder of the embedded cohort, trained by the suite itself."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.image import PeakSignalNoiseRatio

from lightning_modules.guarded import GuardedModule
from meddiff.common.errors import refuse
from meddiff.common.ranges import NOT_NEGATIVE, POSITIVE, check_ranges, not_finite
from meddiff.models.weights.sources import Config
from meddiff.shards.batches import ImageBatch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class AutoencoderModule(GuardedModule):
    """``diffusers.AutoencoderKL`` trained to reconstruct images.

    Loss: mean absolute error + ``gradient_weight`` x mean absolute error of the image gradients (edges are what a phantom
    is made of) + ``kl_weight`` x KL to the standard normal (per latent element). No discriminator. At the end of a fit the
    autoencoder is written to ``RUN/vae`` as a diffusers folder whose scaling factor makes the latents of unit variance.

    Source: Rombach et al. 2022 (architecture, small KL); gradient term own.

    Args:
        vae: ``AutoencoderKL`` arguments.
        learning_rate: peak rate of AdamW; cosine to zero over the run, after a warm-up of 2 %.
        kl_weight: weight of the KL term.
        gradient_weight: weight of the gradient term.

    Raises:
        UserError: a number that is not finite or out of its range.
    """

    def __init__(
        self, vae: Config, learning_rate: float = 2e-3, kl_weight: float = 1e-6, gradient_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config, self.learning_rate = vae, learning_rate
        self.kl_weight, self.gradient_weight = kl_weight, gradient_weight
        check_ranges("autoencoder", self, learning_rate=POSITIVE, kl_weight=NOT_NEGATIVE, gradient_weight=NOT_NEGATIVE)
        refuse(not_finite(vae, "vae"))
        self.psnr = PeakSignalNoiseRatio(data_range=2.0)
        self.latent_std = MeanMetric()

    def configure_model(self) -> None:
        """Build the autoencoder from the run's seed."""
        if hasattr(self, "vae"):
            return
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL(**self.config).train()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under a one-cycle cosine over ``trainer.max_steps``."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.trainer.max_steps + 1, pct_start=0.02
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """batch["image"]: (B, 3, H, W) in [-1, 1]."""
        image = batch["image"]
        posterior = self.vae.encode(image).latent_dist
        reconstruction = self.vae.decode(posterior.sample()).sample  # (B, 3, H, W)
        error = (reconstruction - image).abs().mean()
        edges = (reconstruction.diff(dim=-1) - image.diff(dim=-1)).abs().mean()
        edges = edges + (reconstruction.diff(dim=-2) - image.diff(dim=-2)).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1.0 - posterior.logvar).mean()
        loss = error + self.gradient_weight * edges + self.kl_weight * kl
        self.log_dict({"train/loss": loss, "train/mae": error, "train/kl": kl}, prog_bar=True, batch_size=len(image))
        return self.watched(loss, batch["key"])

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """PSNR (dB, range 2) of the reconstruction of the posterior mean."""
        image = batch["image"]
        mean = self.vae.encode(image).latent_dist.mode()  # (B, C, h, w)
        self.psnr.update(self.vae.decode(mean).sample.clamp(-1, 1), image)
        self.latent_std.update(mean.std())
        self.log_dict({"val/psnr": self.psnr, "val/latent_std": self.latent_std}, prog_bar=True, batch_size=len(image))

    def on_fit_end(self) -> None:
        """Write ``RUN/vae``."""
        if self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False):
            std = float(self.trainer.callback_metrics.get("val/latent_std", torch.tensor(1.0)))
            write_vae(self.vae, Path(self.trainer.default_root_dir) / "vae", 1.0 / std)


def write_vae(vae: "AutoencoderKL", folder: Path, scaling_factor: float) -> None:
    """Write a diffusers folder in half precision with this scaling factor (float32 is kept in memory)."""
    stored = copy.deepcopy(vae).to(torch.float16)
    stored.register_to_config(scaling_factor=round(scaling_factor, 6))
    stored.save_pretrained(folder, safe_serialization=True)
