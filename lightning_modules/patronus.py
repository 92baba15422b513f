"""Training a diffusion model that is told prototypes of the clean image, with or without a text."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal, cast

import torch
from torch import Tensor

from lightning_modules.latent_diffusion import LatentDiffusionModule
from lightning_modules.optimising import Rates
from lightning_modules.patronus_preflight import prototype_problems
from lightning_modules.preflight import check_manifest, misfits, prediction_problem, quick_problems
from lightning_modules.seeding import run_seed
from lightning_modules.speed import SpeedOptions
from meddiff.common.draws import generator
from meddiff.common.errors import UserError, refuse
from meddiff.metrics.functional.usage import DEAD, shared_out
from meddiff.models.patronus import Patronus
from meddiff.models.prototype_options import PrototypeOptions, Space
from meddiff.models.prototypes import distinctness_loss, mean_cosine
from meddiff.models.sampling import SamplingOptions
from meddiff.models.schedule_config import GivenSchedule, PredictionType
from meddiff.models.weights.sources import Source
from meddiff.shards.batches import LatentBatch, TokenBatch
from meddiff.shards.manifest import Manifest


class PrototypeBatch(TokenBatch):
    """A :class:`TokenBatch` whose samples are told of their prototypes where ``told`` (B,) is true."""

    told: Tensor


class PatronusModule(LatentDiffusionModule):
    """How a :class:`meddiff.models.patronus.Patronus`, held as ``model``, is trained.

    The encoder reads the clean image of each sample, with gradient: it learns through the denoising loss alone. Which samples
    are told nothing of their prototypes, so that guidance works, is a draw by (seed, epoch, sample key) of its own.

    Logged beside what :class:`LatentDiffusionModule` logs: ``train/loss_distinct`` where it counts, and with each validation
    over its images ``val/prototype_usage_entropy`` (of their shares of the variance over images; 1 if all vary alike),
    ``val/prototype_dead_share`` and ``val/prototype_mean_cosine``; ``prototypes/...`` are the callback's, over its own images.

    The arguments that are not named below are those of :class:`LatentDiffusionModule`.

    Source: Weng et al., ICLR 2026 (Patronus); spec part A and C1. Presets: ``configs/patronus*.yaml``.

    Args:
        unet: as of :class:`LatentDiffusionModule`; ``mid_attention_heads: 4`` puts the published bottleneck into a U-Net
            without text. One that was trained without prototypes computes at first what it computed before.
        text_encoder: as of :class:`LatentDiffusionModule`; null for a model without text.
        vae: as of :class:`LatentDiffusionModule`; null for pixels.
        space: "latent", or "pixel" in [-1, 1].
        prototypes: what they look at, how many there are, and how the U-Net is told of them.
        prototype_dropout: rate at which a sample's prototypes are kept from the U-Net; 0, as published, leaves a model that
            cannot be asked without them.
        prototypes_learning_rate: of prototypes and their encoder; null means ``learning_rate``.
        decay_prototypes: let ``weight_decay`` act on prototypes and their encoder, as published.
        distinctness: weight of a loss that holds prototypes apart; 0, as published, turns it off.
        distinctness_margin: in ``1 - |cos|``, how far apart.

    Raises:
        UserError: a number or a combination that cannot be.
    """

    model: Patronus

    def __init__(
        self,
        unet: Source,
        text_encoder: Source | None = None,
        vae: Source | None = None,
        space: Space = "latent",
        prototypes: PrototypeOptions = PrototypeOptions(),  # noqa: B008 (frozen dataclass)
        prototype_dropout: float = 0.1,
        prototypes_learning_rate: float | None = None,
        decay_prototypes: bool = False,
        distinctness: float = 0.0,
        distinctness_margin: float = 0.2,
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
        super().__init__(
            unet,
            cast(Source, text_encoder),
            vae,
            freeze_text_encoder,
            learning_rate,
            text_encoder_learning_rate,
            weight_decay,
            warmup_steps,
            learning_rate_schedule,
            prediction_type,
            min_snr_gamma,
            caption_dropout,
            caption_dropout_on,
            ema_decay,
            sampling,
            init_seed,
            noise_schedule,
            stop_after_skipped_steps,
            speed,
        )
        told = PrototypeOptions(**prototypes) if isinstance(prototypes, dict) else prototypes
        # plain types only, so that checkpoints load with weights_only=True
        plain = {**asdict(told), "layers": [list(layer) for layer in told.layers]}
        self.save_hyperparameters({"prototypes": plain})
        refuse(prototype_problems(dict(self.hparams)))
        self.rates = Rates(
            learning_rate,
            text_encoder_learning_rate,
            weight_decay,
            warmup_steps,
            learning_rate_schedule,
            prototypes_learning_rate,
            decay_prototypes,
        )
        self.space, self.options, self.prototype_dropout = space, told, prototype_dropout
        self.distinctness, self.distinctness_margin = distinctness, distinctness_margin
        self._seen = Spread()

    # ---- what can be checked before anything is built -----------------------------------------------------------

    @classmethod
    def preflight(cls, **init_args: object) -> list[str]:
        """As of :class:`LatentDiffusionModule`; prototypes and pixels, too."""
        problems = quick_problems(init_args) + prototype_problems(init_args) + prediction_problem(init_args)
        return problems or misfits(init_args)

    @classmethod
    def preflight_data(cls, manifest: Manifest, **init_args: object) -> list[str]:
        """Sentences that say where shards and model disagree."""
        return check_manifest(manifest, init_args)

    def setup(self, stage: str) -> None:
        """
        Raises:
            UserError: shards and model do not fit, or images would be drawn of a model that knows nothing to draw them by.
        """
        super().setup(stage)
        callbacks: list[object] = self.trainer.callbacks  # type: ignore[attr-defined]  # not declared
        draws = stage == "predict" or any(type(one).__name__ == "FidelityCallback" for one in callbacks)
        if draws and self.sources[1] is None and not self.prototype_dropout:
            raise UserError(
                "Images would be drawn without prototypes and without a text, which this model has never seen "
                "(prototype_dropout is 0): set fidelity to null, or prototype_dropout above 0."
            )

    # ---- building -----------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """
        Raises:
            UserError: a strategy that cuts weights, of which nothing here knows how prototypes would be put together.
        """
        strategy = type(self._trainer.strategy).__name__ if self._trainer is not None else ""
        if strategy in ("FSDPStrategy", "ModelParallelStrategy", "FullyShardedStrategy"):
            raise UserError(f"trainer.strategy: {strategy} does not cut a model with prototypes: take ddp.")
        super().configure_model()

    def built(self, seed: int) -> Patronus:
        """The model; what is not loaded from anywhere is drawn from ``seed``."""
        unet, text_encoder, vae = self.sources
        return Patronus.of(
            unet,
            text_encoder,
            vae,
            self.options,
            self.space,
            self.prediction_type,
            self.sampling,
            self.freeze_text_encoder,
            seed,
            cast(Mapping[str, object] | None, self.hparams["noise_schedule"]),
        )

    # ---- the step -----------------------------------------------------------------------------------------------

    def predicted(self, batch: TokenBatch, noisy: Tensor) -> Tensor:
        """What the model says of x_t, told the prototypes of x_0 and the text: (B, C, h, w)."""
        model = self.model
        activations = model.activations(batch["latents"])  # (B, m)
        if not self.training:
            self._seen.add(activations, batch["weight"])
        told = cast(PrototypeBatch, batch).get("told")
        conditioning = model.with_prototypes(model.encode_tokens(batch["tokens"]), activations, told)
        prediction: Tensor = model.unet(noisy, batch["timesteps"], **conditioning.arguments()).sample
        return prediction

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Mean denoising loss of the micro-batch, and what holds prototypes apart."""
        loss = super().training_step(batch, batch_idx)
        if not self.distinctness:
            return loss
        apart = distinctness_loss(self.model.prototypes.vectors, self.distinctness_margin)
        self.log("train/loss_distinct", apart, batch_size=len(batch["key"]))
        return loss + self.distinctness * apart

    def on_validation_epoch_start(self) -> None:
        self._seen = Spread()

    def on_validation_epoch_end(self) -> None:
        """Log how prototypes are used, over all processes."""
        sums = self._seen.sums
        if sums is None:
            return
        entropy, dead = Spread(self.trainer.strategy.reduce(sums, reduce_op="sum")).use()
        figures = {"usage_entropy": entropy, "dead_share": dead}
        figures["mean_cosine"] = float(mean_cosine(self.model.prototypes.vectors.detach()))
        # of all processes already; without a number (one prototype, no variance) nothing is said
        self.log_dict({f"val/prototype_{name}": value for name, value in figures.items() if math.isfinite(value)})

    def with_tokens(self, batch: LatentBatch, training: bool) -> PrototypeBatch:
        """Add ``tokens`` (B, L), ``timesteps`` (B,) and ``told`` (B,): all of them in evaluation."""
        draws = [
            generator(run_seed(), "prototypes", epoch, key).random() if training else 1.0
            for epoch, key in zip(batch["epoch"], batch["key"], strict=True)
        ]
        told = torch.tensor(draws, dtype=torch.float64) >= self.prototype_dropout
        found: PrototypeBatch = {**super().with_tokens(batch, training), "told": told}
        return found


class Spread:
    """How much activations vary over images, added up batch by batch.

    Args:
        sums: (2 m + 1,) float64: sums of activations and of their squares, and the number of images.
    """

    def __init__(self, sums: Tensor | None = None) -> None:
        self.sums = sums

    @torch.no_grad()
    def add(self, activations: Tensor, weight: Tensor) -> None:
        """Activations (B, m) of images that count as ``weight`` (B,) says (0 for padding)."""
        # squares of what lies near 0.02 and differs in its fourth digit: half precision would see nothing
        values, counted = activations.double(), weight.double()[:, None]
        new = torch.cat([(values * counted).sum(0), (values.square() * counted).sum(0), counted.sum(0)])
        self.sums = new if self.sums is None else self.sums + new

    def use(self) -> tuple[float, float]:
        """Entropy of the shares of the variance, over its greatest value, and the share that does not vary."""
        assert self.sums is not None
        m = len(self.sums) // 2
        mean, square, number = self.sums[:m], self.sums[m : 2 * m], float(self.sums[-1])
        if number < 2:
            return math.nan, math.nan
        variance = ((square - mean.square() / number) / (number - 1)).clamp(min=0.0)  # (m,)
        return shared_out(variance)[0], float((variance.sqrt() < DEAD).double().mean())
