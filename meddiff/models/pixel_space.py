"""The autoencoder of a model that denoises pixels: none. Its latents are the pixels in [-1, 1]. Source: own."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from meddiff.models.autoencoder import FrozenAutoencoder

if TYPE_CHECKING:
    from meddiff.models.backbones import Vae

#: Luminance of red, green and blue (ITU-R BT.601), as Pillow makes pictures grey.
LUMINANCE: Sequence[float] = (0.299, 0.587, 0.114)


class PixelSpace(nn.Module):
    """Stands where an autoencoder of diffusers stands; scaling factor 1, one pixel a latent.

    Args:
        channels: 3, or 1 for grey pictures, which become grey on the way in and are shown in three equal channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.config = SimpleNamespace(scaling_factor=1.0, latent_channels=channels)
        self.register_buffer("place", torch.zeros(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.get_buffer("place").device

    @property
    def dtype(self) -> torch.dtype:
        """Of its tensors."""
        return self.get_buffer("place").dtype

    def encode(self, images: Tensor) -> SimpleNamespace:
        """``latents`` (B, C, H, W) of images (B, 3, H, W) in [-1, 1]."""
        if self.channels == 1:
            weights = torch.tensor(LUMINANCE, device=images.device, dtype=images.dtype)
            images = (images * weights.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)  # (B, 1, H, W)
        return SimpleNamespace(latents=images)

    def decode(self, latents: Tensor) -> SimpleNamespace:
        """``sample`` (B, C, H, W), as it comes."""
        return SimpleNamespace(sample=latents)


class PixelAutoencoder(FrozenAutoencoder):
    """Reads nothing.

    Args:
        channels: of the pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(None)
        self._network = cast("Vae", PixelSpace(channels))
