"""Fine-tuning a text-to-image latent diffusion model with the text encoder frozen or learnable."""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_modules.captions import CaptionCounts, drop_captions
from lightning_modules.checkpoints import architecture, restore_average, restore_schedule
from lightning_modules.optimising import Rates, adamw, take_rates
from lightning_modules.preflight import check_manifest, misfits, prediction_problem, quick_problems, wrong_values
from lightning_modules.seeding import reseed, run_seed
from lightning_modules.sharding import shard_for
from lightning_modules.speed import SpeedOptions, match_layout
from lightning_modules.transfer import TransferringModule
from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError, refuse
from meddiff.models.autoencoder import whole_images
from meddiff.models.ema import ExponentialMovingAverage
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.models.schedule_config import GivenSchedule, PredictionType
from meddiff.models.weights.fitting import first_three
from meddiff.models.weights.sources import Source
from meddiff.shards.batches import LatentBatch, TokenBatch
from meddiff.shards.manifest import Manifest


class LatentDiffusionModule(TransferringModule):
    """How a :class:`meddiff.models.LatentDiffusion`, held as ``model``, is trained on latents: text tower frozen or learnable.

    The VAE is no part of training: latents arrive from shards, and the VAE is read only when images are drawn. The paper's
    question is one argument, ``freeze_text_encoder``. Every random number of a step arrives with the batch, drawn per
    (seed, epoch, sample key), so losses do not depend on workers, ranks or batch size.

    Source: Dombrowski et al., AAAI 2024; spec/tradeoff.md section 3.

    Args:
        unet: folder, single file, ``hub:ORG/NAME``, ``{checkpoint: ONE_OF_THESE, encoder_hid_dim: 768}``, or
            ``UNet2DConditionModel`` arguments for random weights.
        text_encoder: folder with a CLIP, BERT, T5 or another encoder of transformers and its tokenizer, single file,
            ``hub:ORG/NAME``, ``{checkpoint: FOLDER, max_length: 128, attention_mask: true}``, ``{arch: ViT-H-14, checkpoint:
            FILE}`` (open_clip), or ``{width: .., heads: .., layers: ..}`` for random weights.
        vae: folder, single file or ``hub:ORG/NAME``; must be the one that wrote the shards.
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
        noise_schedule: betas by diffusers' names; null takes that of the U-Net's folder, or Stable Diffusion's.
        stop_after_skipped_steps: steps in a row whose loss or gradient is not finite, at which training stops.
        speed: what makes it faster; all off.
    """

    def __init__(
        self,
        unet: Source,
        text_encoder: Source,
        vae: Source | None = None,
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
        noise_schedule: GivenSchedule | None = None,
        stop_after_skipped_steps: int = 10,
        speed: SpeedOptions = SpeedOptions(),  # noqa: B008 (frozen dataclass)
    ) -> None:
        super().__init__()
        self.rates = Rates(
            learning_rate, text_encoder_learning_rate, weight_decay, warmup_steps, learning_rate_schedule
        )
        # Plain types only, so that checkpoints load with weights_only=True.
        self.save_hyperparameters(ignore=["sampling", "speed"])
        self.sampling = SamplingOptions(**sampling) if isinstance(sampling, dict) else sampling
        self.speed = SpeedOptions(**speed) if isinstance(speed, dict) else speed
        self.save_hyperparameters({"sampling": vars(self.sampling), "speed": vars(self.speed)})
        refuse(wrong_values(dict(self.hparams)))
        self.sources = (unet, text_encoder, vae)
        self.prediction_type: PredictionType = prediction_type
        self.freeze_text_encoder, self.init_seed = freeze_text_encoder, init_seed
        self.min_snr_gamma, self.ema_decay = min_snr_gamma, ema_decay
        self.caption_dropout, self.caption_dropout_on = caption_dropout, caption_dropout_on
        self.stop_after_skipped_steps = stop_after_skipped_steps
        self.captions = CaptionCounts()
        self.undrawn: list[str] = []  # keys of images that came out as no numbers

    # ---- what can be checked before anything is built -----------------------------------------------------------

    @classmethod
    def preflight(cls, **init_args: object) -> list[str]:
        """One sentence for each wrong number, missing file, and part whose weights are another network's; reads no values."""
        problems = quick_problems(init_args) + prediction_problem(init_args)
        return problems or misfits(init_args)

    @classmethod
    def preflight_data(cls, manifest: Manifest, **init_args: object) -> list[str]:
        """Sentences that say where shards and model disagree."""
        return check_manifest(manifest, init_args)

    # ---- building -----------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the model. Called by the trainer once per process, also before checkpoints are loaded."""
        if hasattr(self, "model"):
            return
        seed = run_seed() if self.init_seed is None else self.init_seed
        self.model = self.built(seed)
        self.val_loss = MeanMetric()
        self.speed.set_up(self.model)
        shard_for(self, self.model)  # before the average, which is cut as the weights are
        if self.ema_decay is not None:
            trained = self.model.trained_parameters()
            self.model.ema = ExponentialMovingAverage(trained, self.ema_decay, self.speed.ema_every)
        self.train()

    def built(self, seed: int) -> LatentDiffusion:
        """The model; what is not loaded from anywhere is drawn from ``seed``."""
        parts, noise = self.sources, self.hparams["noise_schedule"]
        return LatentDiffusion.build(*parts, self.prediction_type, self.sampling, self.freeze_text_encoder, seed, noise)

    def setup(self, stage: str) -> None:
        """Assert that shards and model fit (a library user has not been through the command's preflight)."""
        manifest = getattr(getattr(self.trainer, "datamodule", None), "manifest", None)
        problems = check_manifest(manifest, dict(self.hparams)) if manifest is not None else []
        if problems:
            raise UserError(" ".join(problems))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; a linear warm-up, then constant rates or a cosine to zero at ``trainer.max_steps``."""
        # A fused step unscales gradients itself, which Lightning forbids together with clipping under fp16.
        clips_under_fp16 = self.trainer.precision == "16-mixed" and self.trainer.gradient_clip_val is not None
        fused = self.device.type in ("cuda", "cpu") and not clips_under_fp16
        optimizer, schedule = adamw(self.model, self.rates, self.trainer.max_steps, fused)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.speed.start(self.model, self.trainer.strategy, self.device)

    def on_train_start(self) -> None:
        schedule = self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR), "configure_optimizers makes one of these"
        take_rates(schedule, self.model, self.rates)
        match_layout(schedule.optimizer)

    # ---- the step -----------------------------------------------------------------------------------------------

    def denoising_loss(self, batch: TokenBatch) -> Tensor:
        """Weighted squared error of each sample of a batch, averaged over C, h, w: (B,)."""
        latents, noise, timesteps = batch["latents"], batch["noise"], batch["timesteps"]  # (B, C, h, w), (B,)
        schedule = self.model.noise_schedule
        noisy = schedule.add_noise(latents, noise, timesteps)  # x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps
        target = schedule.target(latents, noise, timesteps)  # eps, or v = sqrt(a_t) eps - sqrt(1 - a_t) x_0
        prediction = self.predicted(batch, noisy)  # (B, C, h, w)
        error = F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))  # (B,)
        return error * schedule.loss_weights(timesteps, self.min_snr_gamma)

    def predicted(self, batch: TokenBatch, noisy: Tensor) -> Tensor:
        """What the model says of x_t, (B, C, h, w)."""
        prediction: Tensor = self.model(noisy, batch["timesteps"], batch["tokens"])
        return prediction

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Mean denoising loss of the micro-batch."""
        loss = self.denoising_loss(batch).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["key"]))
        self.log_position(len(batch["key"]))
        return self.watched(loss, batch["key"])

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Denoising loss without caption dropout; padded samples weigh nothing."""
        self.val_loss.update(self.denoising_loss(batch), batch["weight"])
        self.log("val/loss", self.val_loss, prog_bar=True, batch_size=len(batch["caption"]))
        self.log_position(len(batch["caption"]))

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """As validation, on the test split, logged as ``test/loss``."""
        self.val_loss.update(self.denoising_loss(batch), batch["weight"])
        self.log("test/loss", self.val_loss, batch_size=len(batch["caption"]))

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> dict[str, object]:
        """One image for each caption of the batch, padding left out."""
        real = [i for i, weight in enumerate(batch["weight"].tolist()) if weight > 0]
        keys, prompts = [batch["key"][i] for i in real], [batch["caption"][i] for i in real]
        images, broken = whole_images(lambda texts, keys: self.model.sample(texts, keys, run_seed()), prompts, keys)
        self.undrawn += broken
        kept = [(key, prompt) for key, prompt in zip(keys, prompts, strict=True) if key in images]
        return {"key": [k for k, _ in kept], "prompt": [p for _, p in kept], "image": [images[k] for k, _ in kept]}

    def on_predict_end(self) -> None:
        """Say which images are missing.

        Raises:
            UserError: some came out as no numbers and were not written.
        """
        broken, self.undrawn = self.undrawn, []
        if broken:
            raise UserError(f"{len(broken)} images were not finite and are not written ({first_three(broken)}).")

    # ---- texts, while the batch is still on the host ------------------------------------------------------------

    def on_before_batch_transfer(self, batch: LatentBatch, dataloader_idx: int) -> TokenBatch:
        """Everything that needs Python, while the batch is still on the host: no step waits for the device."""
        return self.with_tokens(batch, training=self.trainer.training)

    def with_tokens(self, batch: LatentBatch, training: bool) -> TokenBatch:
        """Add ``tokens`` (B, L) and ``timesteps`` (B,); captions are dropped in training only."""
        captions = self.kept_captions(batch)[0] if training else batch["caption"]
        return {
            "key": batch["key"],
            "epoch": batch["epoch"],
            "caption": batch["caption"],
            "labels": batch["labels"],
            "latents": batch["latents"],
            "noise": batch["noise"],
            "weight": batch["weight"],
            "tokens": self.tokenize(captions),
            "timesteps": self.model.noise_schedule.timesteps(batch["timestep_uniform"]),
        }

    def kept_captions(self, batch: LatentBatch) -> tuple[list[str], list[bool]]:
        """Captions after dropout by label, and which were dropped (a function of each sample's own draw)."""
        return drop_captions(batch, self.caption_dropout, self.caption_dropout_on)

    def tokenize(self, captions: list[str]) -> Tensor:
        """(B, L) token ids on the host; captions that are too long are cut, counted and warned of."""
        return self.captions.tokenize(self.model.text_encoder.tokenizer, captions)

    # ---- exact resume -------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: TokenBatch, batch_idx: int) -> None:
        """Reseed the global generators from (seed, step, micro-batch, rank): dropout layers then resume exactly."""
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        reseed(torch_seed(run_seed(), "step", self.trainer.global_step, micro_batch, self.global_rank))

    def optimizer_step(self, *args: object, **kwargs: object) -> None:
        """Step, then average. Here and not in a batch-end hook: checkpoints are written before the module's hook runs."""
        super().optimizer_step(*args, **kwargs)  # type: ignore[arg-type]  # passed on as Lightning gives them
        if self.model.ema is not None:
            self.model.ema.update()

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add the EMA, the truncation count, and what the module is, so that loading needs no base weights.

        Raises:
            UserError: a loss, gradient or weight is not finite.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["architecture"] = architecture(self.model)
        checkpoint["captions"] = vars(self.captions)
        if self.model.ema is not None:
            checkpoint["ema"] = self.model.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Restore them; names of checkpoints from before the model stood apart from its training are told and changed.

        An average that is switched on for a run that kept none starts from the checkpoint's weights.

        Raises:
            UserError: weights or their average do not fit.
        """
        state = cast(dict[str, Tensor], checkpoint.get("state_dict", {}))
        if any(name.startswith("unet.") for name in state):
            checkpoint["state_dict"] = {f"model.{name}": value for name, value in state.items()}
        super().on_load_checkpoint(checkpoint)
        restore_schedule(self.model, checkpoint, self.hparams["noise_schedule"])
        counts = checkpoint.get("captions")
        if isinstance(counts, dict):
            self.captions = CaptionCounts(counts["seen"], counts["truncated"])
        if self.model.ema is not None:
            restore_average(self.model.ema, checkpoint)
