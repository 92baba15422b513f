"""A text-to-image latent diffusion model without a trainer: U-Net, text tower, noise schedule, autoencoder.

Source: Rombach et al. 2022 (latent diffusion); the parts are open_clip's and diffusers' own.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.models.autoencoder import FrozenAutoencoder, decode
from meddiff.models.backbones import build_unet
from meddiff.models.ema import ExponentialMovingAverage
from meddiff.models.noise_schedule import NoiseSchedule, PredictionType
from meddiff.models.pieces import whole
from meddiff.models.sampling import SamplingOptions, build_scheduler, initial_noise, sample_latents
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.cache import TextCache
from meddiff.models.text.tower import Conditioning, TextTower
from meddiff.models.weights.schedule_file import unet_schedule
from meddiff.models.weights.sources import Source

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from meddiff.models.backbones import Vae


class LatentDiffusion(nn.Module):
    """Everything between a prompt and pixels.

    Args:
        unet: predicts noise or v from noisy latents, timesteps and text states.
        text_encoder: token ids -> the text states.
        noise_schedule: of training.
        autoencoder: decodes latents; read at first use.
        sampling: how images are drawn unless told otherwise.
        freeze_text_encoder: keep every bit of the text tower, out of autograd and in eval mode.

    Raises:
        UserError: U-Net and text tower do not fit together.
    """

    def __init__(
        self,
        unet: "UNet2DConditionModel",
        text_encoder: TextTower,
        noise_schedule: NoiseSchedule,
        autoencoder: FrozenAutoencoder | None = None,
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen dataclass)
        freeze_text_encoder: bool = True,
    ) -> None:
        super().__init__()
        width = text_width(unet)
        if width != text_encoder.width:
            raise UserError(
                f"The U-Net expects text of width {width} and the text encoder gives {text_encoder.width}: use parts of one "
                f"model, or set unet.encoder_hid_dim: {text_encoder.width} for a projection inside the U-Net, which is drawn "
                f"and trained with it."
            )
        self.unet, self.text_encoder, self.noise_schedule = unet, text_encoder, noise_schedule
        self.autoencoder = autoencoder or FrozenAutoencoder(None)
        self.sampling, self.freeze_text_encoder = sampling, freeze_text_encoder
        self.ema: ExponentialMovingAverage | None = None  # kept by whoever trains
        self.text_cache: TextCache | None = None  # of a tower that is frozen
        self.text_encoder.requires_grad_(not freeze_text_encoder)

    @classmethod
    def build(
        cls,
        unet: Source,
        text_encoder: Source,
        vae: Source | None = None,
        prediction_type: PredictionType = "epsilon",
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen dataclass)
        freeze_text_encoder: bool = True,
        seed: int = 0,
        noise_schedule: Mapping[str, object] | None = None,
    ) -> Self:
        """Read the parts from their sources; what is not read from anywhere is drawn from ``seed``.

        Args:
            noise_schedule: by the names of diffusers' schedulers; None takes that of the U-Net's folder, else Stable
                Diffusion's.

        Raises:
            UserError: weights are missing or do not fit, or a schedule that is not understood.
        """
        schedule = NoiseSchedule(prediction_type, unet_schedule(unet, noise_schedule, prediction_type))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init", "unet"))
            network = build_unet(unet)
            torch.manual_seed(torch_seed(seed, "init", "text_encoder"))
            tower = build_text_encoder(text_encoder)
        return cls(network, tower, schedule, FrozenAutoencoder(vae), sampling, freeze_text_encoder)

    def train(self, mode: bool = True) -> Self:
        """As usual, but a frozen text tower stays in eval mode."""
        super().train(mode)
        if self.freeze_text_encoder:
            self.text_encoder.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the U-Net computes."""
        return next(self.unet.parameters()).device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the U-Net's input."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.unet.config.in_channels, height, width)

    @property
    def vae(self) -> "Vae":
        """The frozen autoencoder on the model's device, read at first use.

        Raises:
            UserError: there is none.
        """
        return self.autoencoder.on(self.device)

    @property
    def scaling_factor(self) -> float:
        """What multiplies the autoencoder's latents before they meet the U-Net."""
        return float(self.vae.config.scaling_factor)

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that trains."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def weights(self, ema: bool) -> AbstractContextManager[None]:
        """Context in which the model computes with the averaged weights (or, with False, with the raw ones).

        Weights in pieces (FSDP2) are whole within it (:func:`meddiff.models.pieces.whole`): all processes enter it together.

        Raises:
            UserError: the model keeps no average.
        """
        if not ema:
            return whole(self)
        if self.ema is None:
            raise UserError("This model keeps no EMA (ema_decay is null): evaluate the raw weights.")
        return _averaged(self, self.ema)

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict epsilon or v: noisy (B, C, h, w), timesteps (B,), tokens (B, L) -> (B, C, h, w)."""
        prediction: Tensor = self.unet(noisy, timesteps, **self.encode_tokens(tokens).arguments()).sample
        return prediction

    def encode_tokens(self, tokens: Tensor) -> Conditioning:
        """Token ids (B, L) -> states (B, L, D) and mask; outside autograd when the tower is frozen.

        With a cache the ids are best still on the host, where it looks them up.
        """
        if self.caches_texts:
            assert self.text_cache is not None
            mask = self.text_encoder.mask(tokens)
            states = self.text_cache(self.text_encoder, tokens)
            return Conditioning(states, None if mask is None else mask.to(self.device, non_blocking=True))
        tokens = tokens.to(self.device)
        with torch.no_grad() if self.freeze_text_encoder else nullcontext():
            return Conditioning(self.text_encoder(tokens), self.text_encoder.mask(tokens))

    @property
    def reads_text(self) -> bool:
        """Whether a text changes anything."""
        return True

    @property
    def caches_texts(self) -> bool:
        """Whether states of texts are kept: there is a cache, and the tower stays as it is."""
        return self.text_cache is not None and self.freeze_text_encoder and self.text_cache.serves(self.text_encoder)

    def encode_texts(self, texts: Sequence[str]) -> Conditioning:
        """States (B, L, D) and mask on the model's device; texts that are too long are cut, and warned of."""
        tokenizer = self.text_encoder.tokenizer
        tokens, truncated = tokenizer.tokenize(texts)
        if truncated:
            told = f"A text is longer than {tokenizer.max_length} tokens; its end is cut off."
            warnings.warn(told, UserWarning, stacklevel=2)
        return self.encode_tokens(tokens)

    def blank(self, rows: int) -> Conditioning:
        """Zeros in the place of what the U-Net is told of ``rows`` images: enough for whoever counts shapes."""
        weight = next(self.unet.parameters())
        shape = (rows, self.text_encoder.tokenizer.max_length, self.text_encoder.width)
        return Conditioning(torch.zeros(shape, device=weight.device, dtype=weight.dtype))

    def sample(
        self,
        prompts: Sequence[str],
        keys: Sequence[str],
        seed: int,
        options: SamplingOptions | None = None,
        unet: "UNet2DConditionModel | None" = None,
        on_step: Callable[[int], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Draw one image a prompt: uint8 (B, H, W, 3). The noise depends on (seed, key) alone.

        Args:
            options: how; None takes the model's own ``sampling``.
            unet: another network in the place of the model's own (a control).
            on_step: called after each step with the number of steps done.

        Raises:
            NotFiniteImages: some came out as no numbers; carries the others.
        """
        with torch.no_grad():
            text, empty = self.encode_texts(prompts), self.encode_texts([""])
        return self.draw_told(text, empty, keys, seed, options, unet, on_step)

    def draw_told(
        self,
        told: Conditioning,
        nothing: Conditioning,
        keys: Sequence[str],
        seed: int,
        options: SamplingOptions | None = None,
        unet: "UNet2DConditionModel | None" = None,
        on_step: Callable[[int], None] | None = None,
    ) -> NDArray[np.uint8]:
        """As :meth:`sample`, of what the U-Net is told, B rows, and of what guidance subtracts, one."""
        options = options or self.sampling
        noise = initial_noise(seed, keys, self.latent_shape).to(self.device)  # (B, C, h, w)
        scheduler = build_scheduler(options.sampler, self.noise_schedule.config)
        latents = sample_latents(unet or self.unet, scheduler, noise, told, nothing, options, on_step)
        return decode(self.vae, latents.float(), self.scaling_factor)


@contextmanager
def _averaged(model: LatentDiffusion, ema: ExponentialMovingAverage) -> Iterator[None]:
    with ema.swapped_in(), whole(model):
        yield


def text_width(unet: "UNet2DConditionModel") -> int:
    """Channels of the text states that a U-Net takes: of its own projection where it has one.

    Raises:
        UserError: it attends to no text, or to something beside a text.
    """
    config = unet.config
    projected, kind = config.get("encoder_hid_dim"), config.get("encoder_hid_dim_type")
    if kind not in (None, "text_proj"):
        raise UserError(f"This U-Net takes {kind} beside a text: give one that takes text states alone.")
    widths = {projected} if projected is not None else _widths(config.cross_attention_dim)
    if len(widths) != 1:
        raise UserError(f"This U-Net takes text of the widths {sorted(widths)} at once: give one that takes one.")
    return int(widths.pop())


def _widths(given: int | Sequence[int]) -> set[int]:
    return {given} if isinstance(given, int) else set(given)


def model_of(module: nn.Module) -> LatentDiffusion:
    """The model that a training module holds as ``model``.

    Raises:
        UserError: it holds none, so there is nothing to evaluate or draw with.
    """
    model = getattr(module, "model", None)
    if not isinstance(model, LatentDiffusion):
        raise UserError(
            f"{type(module).__name__} holds no latent diffusion model: this needs LatentDiffusionModule or one that has "
            f"a meddiff.models.LatentDiffusion as its `model`."
        )
    return model
