"""A diffusion model that is told prototype activations of the clean image: interpretable by construction.

An encoder compares patches of the clean image (or of its latents) with learned prototypes; the U-Net is told how near the
nearest patch comes to each. Both are trained by the denoising loss alone. An image is edited by changing one activation.

Source: Weng et al., ICLR 2026 (Patronus), spec part A. Latents, text beside prototypes, the route through cross-attention and
conditioning dropout are own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.models.autoencoder import FrozenAutoencoder, decode, encode
from meddiff.models.backbones import build_unet
from meddiff.models.latent_diffusion import LatentDiffusion, text_width
from meddiff.models.noise_schedule import NoiseSchedule, PredictionType
from meddiff.models.pixel_space import PixelAutoencoder
from meddiff.models.prototype_options import PrototypeOptions, Space, check_parts, encoder_of
from meddiff.models.prototype_unet import told_prototypes, told_prototypes_config
from meddiff.models.prototypes import PrototypeEncoder
from meddiff.models.sampling import SamplingOptions
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.no_text import NoText
from meddiff.models.text.tower import Conditioning, TextTower
from meddiff.models.weights.schedule_file import unet_schedule
from meddiff.models.weights.sources import Source

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class Patronus(LatentDiffusion):
    """A :class:`LatentDiffusion` whose U-Net is told of prototypes beside, or in the place of, a text.

    "No prototypes", which classifier-free guidance subtracts and which all measurements of words look at, is 0 for all of
    them on route "time" (an activation is always above 0), and no tokens on route "tokens".

    Args:
        unet: takes (B, m) numbers as its class embedding on route "time", text states on route "tokens".
        text_encoder: :class:`meddiff.models.text.no_text.NoText` for a model without text.
        noise_schedule: of training.
        prototypes: the encoder.
        options: what it was made of; its route counts.
        space: what is denoised; "pixel" has no autoencoder.
        autoencoder, sampling, freeze_text_encoder: as of :class:`LatentDiffusion`.

    Raises:
        UserError: parts that do not fit together.
    """

    def __init__(
        self,
        unet: "UNet2DConditionModel",
        text_encoder: TextTower,
        noise_schedule: NoiseSchedule,
        prototypes: PrototypeEncoder,
        options: PrototypeOptions,
        space: Space = "latent",
        autoencoder: FrozenAutoencoder | None = None,
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen dataclass)
        freeze_text_encoder: bool = True,
    ) -> None:
        channels = int(unet.config.in_channels)
        if space == "pixel":
            autoencoder = PixelAutoencoder(channels)
        super().__init__(unet, text_encoder, noise_schedule, autoencoder, sampling, freeze_text_encoder)
        check_parts(unet, text_encoder, prototypes, options.route, space)
        self.prototypes, self.options, self.space = prototypes, options, space
        if options.route == "tokens":
            # of the size of a word's states, which a tower's last norm brings to about 1
            self.prototype_tokens = nn.Parameter(torch.randn(prototypes.m, text_encoder.width))

    @classmethod
    def of(
        cls,
        unet: Source,
        text_encoder: Source | None,
        vae: Source | None = None,
        prototypes: PrototypeOptions = PrototypeOptions(),  # noqa: B008 (frozen dataclass)
        space: Space = "latent",
        prediction_type: PredictionType = "epsilon",
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen dataclass)
        freeze_text_encoder: bool = True,
        seed: int = 0,
        noise_schedule: Mapping[str, object] | None = None,
    ) -> Self:
        """Read the parts from their sources; what is not read from anywhere is drawn from ``seed``.

        A U-Net that was trained without prototypes gets their embedding beside its weights, and computes at first what it
        computed before (:func:`meddiff.models.prototype_unet.told_prototypes`).

        Args:
            text_encoder: None for a model without text.

        Raises:
            UserError: weights are missing or do not fit, or a schedule or stack that cannot be.
        """
        schedule = NoiseSchedule(prediction_type, unet_schedule(unet, noise_schedule, prediction_type))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init", "unet"))
            if prototypes.route == "time":
                drawn = told_prototypes_config(unet, prototypes.number)
                network = told_prototypes(build_unet(unet if drawn is None else drawn), prototypes.number)
            else:
                network = build_unet(unet)
            torch.manual_seed(torch_seed(seed, "init", "text_encoder"))
            tower = NoText(text_width(network)) if text_encoder is None else build_text_encoder(text_encoder)
            torch.manual_seed(torch_seed(seed, "init", "prototypes"))
            encoder = encoder_of(prototypes, int(network.config.in_channels))
            return cls(
                network,
                tower,
                schedule,
                encoder,
                prototypes,
                space,
                FrozenAutoencoder(vae),
                sampling,
                freeze_text_encoder,
            )

    @property
    def m(self) -> int:
        """How many prototypes there are."""
        return self.prototypes.m

    @property
    def reads_text(self) -> bool:
        """Whether a text changes anything."""
        return not isinstance(self.text_encoder, NoText)

    @property
    def downsample(self) -> int:
        """Pixels along one side of a cell of what is denoised.

        Raises:
            UserError: latents, and no autoencoder to ask.
        """
        if self.space == "pixel":
            return 1
        from meddiff.models.backbones import vae_downsample

        return vae_downsample(dict(self.vae.config))

    def prototype_parameters(self) -> list[nn.Parameter]:
        """The encoder, its prototypes and, on route "tokens", what each is a token of."""
        tokens = [self.prototype_tokens] if self.options.route == "tokens" else []
        return [*self.prototypes.parameters(), *tokens]

    @property
    def caches_texts(self) -> bool:
        """As of a latent diffusion model; without text there is nothing to keep."""
        return self.reads_text and super().caches_texts

    # ---- prototypes ---------------------------------------------------------------------------------------------

    def activations(self, x0: Tensor) -> Tensor:
        """(B, m) of clean pixels or latents (B, C, H, W), scaled as the U-Net takes them; with gradient."""
        found: Tensor = self.prototypes(x0)
        return found

    def activation_maps(self, x0: Tensor) -> Tensor:
        """(B, m, H', W') of the same."""
        return self.prototypes.maps(x0)

    def conditioning(self, activations: Tensor | None, texts: Sequence[str] | None = None) -> Conditioning:
        """What the U-Net is told: activations (B, m), or None for no prototypes, beside texts, or None for the empty one.

        Without activations there are as many rows as texts, or one.

        Raises:
            UserError: another number of activations than the model has prototypes.
        """
        rows = 1 if activations is None else len(activations)
        if activations is not None and activations.shape[1] != self.m:
            raise UserError(
                f"{activations.shape[1]} activations for a model of {self.m} prototypes: give one for each."
            )
        told = self.encode_texts([""]).expand(rows) if texts is None else self.encode_texts(texts)
        return told if activations is None else self.with_prototypes(told, activations)

    def encode_tokens(self, tokens: Tensor) -> Conditioning:
        """Token ids (B, L) -> what the U-Net is told of a text alone, without prototypes."""
        text = super().encode_tokens(tokens)
        if self.options.route == "tokens":
            if self.reads_text:
                return text
            # without a single token there would be nothing to attend to; keys and values of zeros add nothing
            return text.followed_by(text.states.new_zeros(len(tokens), self.m, self.text_encoder.width))
        return replace(text, activations=text.states.new_zeros(len(tokens), self.m))

    def with_prototypes(self, text: Conditioning, activations: Tensor, kept: Tensor | None = None) -> Conditioning:
        """What the U-Net is told of a text and of prototypes.

        Args:
            text: of :meth:`encode_tokens` or :meth:`encode_texts`, B rows.
            activations: (B, m).
            kept: (B,) bool, the rows that are told of their prototypes; None for all.
        """
        if kept is not None:
            activations = activations * kept.to(activations.dtype)[:, None]
        if self.options.route == "time":
            return replace(text, activations=activations)
        tokens = activations[:, :, None].to(self.prototype_tokens.dtype) * self.prototype_tokens  # (B, m, D)
        if not self.reads_text:
            return replace(text, states=tokens)
        mask = None if kept is None else kept[:, None].expand(-1, self.m)
        return text.followed_by(tokens, mask)

    def blank(self, rows: int) -> Conditioning:
        """... with the prototypes of blank images, so that computing them counts, too."""
        text = super().blank(rows)
        images = torch.zeros(rows, *self.latent_shape, device=text.states.device, dtype=text.states.dtype)
        return self.with_prototypes(text, self.activations(images))

    # ---- pictures -----------------------------------------------------------------------------------------------

    def to_space(self, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> Tensor:
        """uint8 images (H, W) or (H, W, 3) of one size -> what is denoised, (B, C, h, w), on the model's device."""
        return encode(self.vae, list(images), self.scaling_factor).to(self.device)

    def to_images(self, x: Tensor) -> NDArray[np.uint8]:
        """What is denoised, (B, C, h, w), as pictures: uint8 (B, H, W, 3).

        Raises:
            NotFiniteImages: some are no numbers; carries the others.
        """
        return decode(self.vae, x.float(), self.scaling_factor)

    def draw(
        self,
        told: Conditioning,
        keys: Sequence[str],
        seed: int,
        options: SamplingOptions | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Draw one image a row of a conditioning: uint8 (B, H, W, 3). The noise depends on (seed, key) alone.

        Guidance subtracts the model without text and without prototypes.

        Raises:
            NotFiniteImages: some came out as no numbers; carries the others.
        """
        with torch.no_grad():
            nothing = self.conditioning(None)
        return self.draw_told(told, nothing, keys, seed, options, on_step=on_step)


def refuse_pipeline(model: LatentDiffusion) -> None:
    """Refuse to write a model in a form that has no place for prototypes.

    Raises:
        UserError: it is a :class:`Patronus`.
    """
    if isinstance(model, Patronus):
        raise UserError(
            "A model with prototypes does not fit into a pipeline of diffusers, which would draw without them: keep its run "
            "folder or its checkpoint, which load by themselves."
        )
