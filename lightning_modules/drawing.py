"""How a text-conditioned latent model draws images: shared by every module that has a U-Net, a text tower and a VAE."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.backbones import load_vae
from meddiff.models.sampling import SamplingOptions, build_scheduler, decode, initial_noise, sample_latents


class DrawsImages:
    """Mixin of :class:`LatentDiffusionModule`: everything between a prompt and pixels.

    Expects ``unet``, ``schedule``, ``sampling``, ``ema``, ``h.vae``, ``tokenize`` and ``encode_tokens``.
    """

    unet: Any
    ema: Any
    h: Any
    device: torch.device
    schedule: dict[str, Any]
    sampling: SamplingOptions
    tokenize: Any
    encode_tokens: Any
    _vae: list[Any]

    @property
    def vae(self) -> Any:
        """The frozen autoencoder on the module's device, read at first use."""
        if not self._vae:
            if self.h.vae is None:
                raise UserError("No VAE to decode latents with: set --model.vae to the folder that wrote the shards.")
            self._vae.append(load_vae(self.h.vae))
        return self._vae[0].to(self.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the U-Net's input."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.unet.config.in_channels, height, width)

    def evaluated_weights(self, ema: bool) -> AbstractContextManager[None]:
        """Context in which the model computes with the averaged weights (or, by default, with the raw ones)."""
        if not ema:
            return nullcontext()
        if self.ema is None:
            raise UserError("This model keeps no EMA (ema_decay is null): evaluate the raw weights.")
        return self.ema.swapped_in()

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Hidden states (B, 77, D) on the module's device."""
        states: Tensor = self.encode_tokens(self.tokenize(texts).to(self.device))
        return states

    def sample(
        self,
        prompts: Sequence[str],
        keys: Sequence[str],
        seed: int,
        options: SamplingOptions | None = None,
        unet: Any = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Draw one image a prompt: uint8 (B, H, W, 3). The noise depends on (seed, key) alone.

        Args:
            unet: another network in the place of the module's own (a control).
        """
        noise = initial_noise(seed, keys, self.latent_shape).to(self.device)  # (B, C, h, w)
        scheduler = build_scheduler((options or self.sampling).sampler, self.schedule)
        with torch.no_grad():
            text, empty = self.encode_texts(list(prompts)), self.encode_texts([""])
        latents = sample_latents(unet or self.unet, scheduler, noise, text, empty, options or self.sampling, **kwargs)
        return decode(self.vae, latents.float(), float(self.vae.config.scaling_factor))
