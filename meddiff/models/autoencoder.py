"""The frozen autoencoder of a latent model, read when pixels are first asked for. Source: own; weights are diffusers'."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.backbones import load_vae

if TYPE_CHECKING:
    from meddiff.models.backbones import Vae


@torch.no_grad()
def decode(vae: "Vae", latents: Tensor, scaling_factor: float) -> NDArray[np.uint8]:
    """Latents (B, C, h, w) -> uint8 RGB (B, H, W, 3)."""
    images = vae.decode((latents / scaling_factor).to(vae.dtype)).sample  # (B, 3, H, W) in [-1, 1]
    images = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    pixels: NDArray[np.uint8] = images.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    return pixels


def stack_images(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 images (H, W) or (H, W, 3) of one size -> (B, 3, H, W) in [-1, 1]."""
    batch = np.stack([image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images])
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def encode(vae: "Vae", images: Sequence[NDArray[np.uint8]], scaling_factor: float) -> Tensor:
    """uint8 images (H, W) or (H, W, 3) of one size -> scaled latents (B, C, h, w), the posterior's mean."""
    encoded = vae.encode(stack_images(images).to(vae.device, vae.dtype))
    # AutoencoderTiny has no posterior
    latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return latents.float() * scaling_factor


class FrozenAutoencoder:
    """Weights that are read at first use and belong to no module: neither trained, nor saved with a checkpoint.

    Args:
        source: diffusers folder or ``hub:ORG/NAME``; None means that there is none.
    """

    def __init__(self, source: str | None) -> None:
        self.source = source
        self._network: Vae | None = None

    def on(self, device: torch.device) -> "Vae":
        """The network on ``device``.

        Raises:
            UserError: there is none, or its weights are missing.
        """
        if self._network is None:
            if self.source is None:
                raise UserError("No VAE to decode latents with: set --model.vae to the folder that wrote the shards.")
            self._network = load_vae(self.source)
        return self._network.to(device)
