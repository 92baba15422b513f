"""Fine-tuning a text-to-image latent diffusion model with the text encoder frozen or learnable."""

import os
import random
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Literal, Self

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_modules.drawing import DrawsImages
from lightning_modules.optimising import Optimises
from lightning_modules.preflight import check_manifest, missing_weights, prediction_problem
from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.models.backbones import build_unet
from meddiff.models.ema import ExponentialMovingAverage
from meddiff.models.noise_schedule import PredictionType, loss_weights, schedule_config, timesteps_from_uniform
from meddiff.models.sampling import SamplingOptions, build_scheduler
from meddiff.models.text.encoder import build_text_encoder, tokenize
from meddiff.models.weights.sources import Source

EVERY_CAPTION = "all"


def run_seed() -> int:
    """The seed given to ``seed_everything`` (0 when there was none)."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class LatentDiffusionModule(DrawsImages, Optimises, L.LightningModule):
    """U-Net and text tower trained on latents, with the text tower frozen or learnable.

    The VAE is no part of training: latents arrive from shards, and the VAE is read only when images are drawn. The paper's
    question is one argument, ``freeze_text_encoder``. Every random number of a step arrives with the batch, drawn per
    (seed, epoch, sample key), so losses do not depend on workers, ranks or batch size.

    Source: Dombrowski et al., AAAI 2024; spec/tradeoff.md section 3.

    Args:
        unet: diffusers folder, ``hub:ORG/NAME``, or ``UNet2DConditionModel`` arguments for random weights.
        text_encoder: diffusers folder, ``hub:ORG/NAME``, ``{arch: ViT-H-14, checkpoint: FILE}`` (open_clip), or
            ``{width: .., heads: .., layers: ..}`` for random weights.
        vae: diffusers folder or ``hub:ORG/NAME``; must be the one that wrote the shards.
        freeze_text_encoder: true keeps every bit of the text tower and leaves it out of optimiser and autograd;
            false trains it.
        learning_rate: of the U-Net (AdamW, not scaled by the batch size).
        text_encoder_learning_rate: of the text tower when it is learnable; null means ``learning_rate``.
        weight_decay: AdamW's, for both.
        warmup_steps: optimiser steps over which the learning rates rise linearly from 0; 0 turns it off.
        learning_rate_schedule: after the warm-up "constant" (the paper's) or "cosine", down to 0 at ``trainer.max_steps``.
        prediction_type: what the U-Net predicts, ``epsilon`` or ``v_prediction``.
        min_snr_gamma: min-SNR loss weighting (5 is usual); null weighs all timesteps alike.
        caption_dropout: rate at which captions are replaced by the empty one, for classifier-free guidance.
        caption_dropout_on: the label whose captions may be dropped ("No Finding", as the paper says), or "all".
        ema_decay: keep an exponential moving average of all that trains; null for none. Never swapped in unless asked.
        sampling: how images are drawn by ``predict`` and the fidelity evaluation.
        init_seed: seed of weights that are not loaded from anywhere; null means the run's seed.
    """

    def __init__(
        self,
        unet: Source,
        text_encoder: Source,
        vae: str | None = None,
        freeze_text_encoder: bool = True,
        learning_rate: float = 5e-5,
        text_encoder_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        learning_rate_schedule: Literal["constant", "cosine"] = "constant",
        prediction_type: PredictionType = "epsilon",
        min_snr_gamma: float | None = None,
        caption_dropout: float = 0.3,
        caption_dropout_on: str = "No Finding",
        ema_decay: float | None = 0.9999,
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen dataclass)
        init_seed: int | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= caption_dropout <= 1.0:
            raise UserError(f"caption_dropout is {caption_dropout}; it is a rate and must lie in [0, 1].")
        if learning_rate_schedule not in ("constant", "cosine"):
            raise UserError(f"learning_rate_schedule is {learning_rate_schedule!r}; it must be 'constant' or 'cosine'.")
        if freeze_text_encoder and text_encoder_learning_rate is not None:
            raise UserError(
                f"text_encoder_learning_rate is {text_encoder_learning_rate} but the text encoder is frozen: set "
                f"freeze_text_encoder to false, or drop the learning rate."
            )
        # Plain types only, so that checkpoints load with weights_only=True.
        self.save_hyperparameters(ignore=["sampling"])
        self.sampling = SamplingOptions(**sampling) if isinstance(sampling, dict) else sampling
        self.save_hyperparameters({"sampling": vars(self.sampling)})
        self.schedule = schedule_config(prediction_type)
        self.ema: ExponentialMovingAverage | None = None
        self.captions_seen = self.captions_truncated = 0
        self._vae: list[Any] = []  # in a list: not a submodule, so neither trained, moved nor saved
        self._built = False
        self.alphas_cumprod: Tensor  # a buffer, made with the model

    @property
    def h(self) -> Any:
        """The hyperparameters, by attribute."""
        return self.hparams

    # ---- what can be checked before anything is built -----------------------------------------------------------

    @classmethod
    def preflight(cls, **init_args: Any) -> list[str]:
        """One sentence for each missing file; looks at the disk only, reads no weights."""
        return missing_weights(init_args) + prediction_problem(init_args)

    @classmethod
    def preflight_data(cls, manifest: Any, **init_args: Any) -> list[str]:
        """Sentences that say where shards and model disagree."""
        return check_manifest(manifest, init_args)

    # ---- building -----------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build U-Net and text tower. Called by the trainer once per process, also before checkpoints are loaded."""
        if self._built:
            return
        h = self.h
        seed = run_seed() if h.init_seed is None else h.init_seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init", "unet"))
            self.unet = build_unet(h.unet)
            torch.manual_seed(torch_seed(seed, "init", "text_encoder"))
            self.text_encoder = build_text_encoder(h.text_encoder)
        if self.unet.config.cross_attention_dim != self.text_encoder.width:
            raise UserError(
                f"The U-Net expects text of width {self.unet.config.cross_attention_dim} and the text encoder gives "
                f"{self.text_encoder.width}: use parts of one model, or set cross_attention_dim."
            )
        self.text_encoder.requires_grad_(not h.freeze_text_encoder)
        scheduler = build_scheduler("ddim", self.schedule)
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)
        self.val_loss = MeanMetric()
        if h.ema_decay is not None:
            self.ema = ExponentialMovingAverage(self.trained_parameters(), h.ema_decay)
        self._built = True
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen text tower stays in eval mode."""
        super().train(mode)
        if self._built and self.h.freeze_text_encoder:
            self.text_encoder.eval()
        return self

    def setup(self, stage: str) -> None:
        """Assert that shards and model fit (a library user has not been through the command's preflight)."""
        manifest = getattr(getattr(self.trainer, "datamodule", None), "manifest", None)
        problems = check_manifest(manifest, dict(self.hparams)) if manifest is not None else []
        if problems:
            raise UserError(" ".join(problems))

    def trained_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """(name, parameter) of everything that trains."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    # ---- the step -----------------------------------------------------------------------------------------------

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict epsilon or v: noisy (B, C, h, w), timesteps (B,), tokens (B, 77) -> (B, C, h, w)."""
        return self.unet(noisy, timesteps, encoder_hidden_states=self.encode_tokens(tokens)).sample

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """(B, 77) token ids -> (B, 77, D); outside autograd when the tower is frozen."""
        with torch.no_grad() if self.h.freeze_text_encoder else nullcontext():
            return self.text_encoder(tokens)

    def tokenize(self, captions: list[str]) -> Tensor:
        """(B, 77) token ids on the host; captions that are too long are cut, counted and warned of."""
        tokens, truncated = tokenize(captions)
        before, self.captions_truncated = self.captions_truncated, self.captions_truncated + truncated
        self.captions_seen += len(captions)
        # At the first one and at every further power of ten: seen, but not once a step.
        if (truncated and len(str(before)) < len(str(self.captions_truncated))) or (truncated and before == 0):
            rank_zero_warn(
                f"{self.captions_truncated} of {self.captions_seen} captions so far are longer than 77 tokens; "
                f"their ends are cut off and cannot be learned.",
                category=UserWarning,
            )
        return tokens

    def kept_captions(self, batch: dict[str, Any]) -> tuple[list[str], list[bool]]:
        """Captions after dropout by label, and which were dropped (a function of each sample's own draw)."""
        h = self.h
        uniform = batch["dropout_uniform"].tolist()
        dropped = [
            u < h.caption_dropout and (h.caption_dropout_on == EVERY_CAPTION or h.caption_dropout_on in labels)
            for u, labels in zip(uniform, batch["labels"], strict=True)
        ]
        return ["" if gone else text for gone, text in zip(dropped, batch["caption"], strict=True)], dropped

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Everything that needs Python, while the batch is still on the host: no step waits for the device."""
        return self.with_tokens(batch, training=self.trainer.training)

    def with_tokens(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """Add ``tokens`` (B, 77) and ``timesteps`` (B,); captions are dropped in training only."""
        captions = self.kept_captions(batch)[0] if training else batch["caption"]
        timesteps = timesteps_from_uniform(batch["timestep_uniform"], self.schedule["num_train_timesteps"])
        kept = {key: value for key, value in batch.items() if key not in ("timestep_uniform", "dropout_uniform")}
        return {**kept, "tokens": self.tokenize(captions), "timesteps": timesteps}

    def denoising_loss(self, batch: dict[str, Any]) -> Tensor:
        """Weighted squared error of each sample of a batch with tokens, averaged over C, h, w: (B,)."""
        latents, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]  # (B, C, h, w), (B,)
        signal = self.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
        sigma = (1.0 - self.alphas_cumprod[timesteps]).sqrt().view(-1, 1, 1, 1)
        noisy = signal * latents + sigma * noise
        target = noise if self.h.prediction_type == "epsilon" else signal * noise - sigma * latents
        prediction = self(noisy, timesteps, batch["tokens"])
        error = F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))  # (B,)
        weights = loss_weights(self.alphas_cumprod, timesteps, self.h.prediction_type, self.h.min_snr_gamma)
        return error * weights

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Reseed the global generators from (seed, step, micro-batch, rank): dropout layers then resume exactly."""
        seed = torch_seed(
            run_seed(),
            "step",
            self.trainer.global_step,
            batch_idx % self.trainer.accumulate_grad_batches,
            self.global_rank,
        )
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (third-party layers may draw from it)
        random.seed(seed)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Mean denoising loss of the micro-batch."""
        loss = self.denoising_loss(batch).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["key"]))
        self.log_position(len(batch["key"]))
        return loss

    def log_position(self, batch_size: int) -> None:
        """``images``: what the optimiser has seen when a row is written, the x-axis of every curve."""
        consumed = getattr(getattr(self.trainer, "datamodule", None), "images_consumed", None)
        if consumed is not None:
            self.log("images", float(consumed), batch_size=batch_size)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then average. Here and not in a batch-end hook: checkpoints are written before the module's hook runs."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Denoising loss without caption dropout; padded samples weigh nothing."""
        self.val_loss.update(self.denoising_loss(batch), batch["weight"])
        self.log("val/loss", self.val_loss, prog_bar=True, batch_size=len(batch["caption"]))
        self.log_position(len(batch["caption"]))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """As validation, on the test split, logged as ``test/loss``."""
        self.val_loss.update(self.denoising_loss(batch), batch["weight"])
        self.log("test/loss", self.val_loss, batch_size=len(batch["caption"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """One image for each caption of the batch, padding left out."""
        real = [i for i, weight in enumerate(batch["weight"].tolist()) if weight > 0]
        keys, prompts = [batch["key"][i] for i in real], [batch["caption"][i] for i in real]
        return {"key": keys, "prompt": prompts, "image": self.sample(prompts, keys, run_seed())}

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the EMA, the truncation count, and the shape of the parts, so that loading needs no base weights."""
        unet = {key: value for key, value in dict(self.unet.config).items() if not key.startswith("_")}
        checkpoint["architecture"] = {"unet": plain(unet), "text_encoder": self.text_encoder.config}
        checkpoint["captions"] = {"seen": self.captions_seen, "truncated": self.captions_truncated}
        if self.ema is not None:
            checkpoint["ema"] = self.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        counts = checkpoint.get("captions", {"seen": 0, "truncated": 0})
        self.captions_seen, self.captions_truncated = counts["seen"], counts["truncated"]
        if self.ema is not None and "ema" in checkpoint:
            self.ema.load_state_dict(checkpoint["ema"])


def plain(value: Any) -> Any:
    """Lists and dicts of plain values: what ``torch.load(weights_only=True)`` accepts."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
