"""The frozen autoencoder of a latent model, read when pixels are first asked for. Source: own; weights are diffusers'."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.backbones import load_vae
from meddiff.models.eight_bits import eight_bits
from meddiff.models.weights.fitting import first_three
from meddiff.models.weights.sources import Source

if TYPE_CHECKING:
    from meddiff.models.backbones import Vae


#: Prompts, keys -> images, uint8 (B, H, W, 3).
Draw = Callable[[list[str], list[str]], NDArray[np.uint8]]


class NotFiniteImages(UserError):
    """Some images have pixels that are no numbers: as bytes they would be black and pass for pictures.

    Attributes:
        images: uint8 (B, H, W, 3), all of the batch; the broken ones are black. Empty where they were not kept.
        broken: places in the batch, or keys.
    """

    def __init__(self, images: NDArray[np.uint8], broken: Sequence[int] | Sequence[str], total: int) -> None:
        names = [f"number {one}" if isinstance(one, int) else one for one in broken]
        super().__init__(
            f"{len(broken)} of {total} images are not finite ({first_three(names)}): take a smaller guidance_scale, more "
            f"steps or 32-bit precision, or a checkpoint from before the training broke."
        )
        self.images, self.broken = images, broken


def whole_images(draw: Draw, prompts: list[str], keys: list[str]) -> tuple[dict[str, NDArray[np.uint8]], list[str]]:
    """What ``draw`` gives, without what is not finite.

    Returns:
        key -> image (H, W, 3) of the others, and the keys of what is not finite.
    """
    broken: set[int | str] = set()
    try:
        images = draw(prompts, keys)
    except NotFiniteImages as error:
        images, broken = error.images, set(error.broken)
    pairs = list(enumerate(zip(keys, images, strict=True)))
    return {key: image for k, (key, image) in pairs if k not in broken}, [keys[k] for k, _ in pairs if k in broken]


#: Latents that a CPU decodes at once, whatever the batch: beyond it activations leave the cache and every buffer is so large
#: that it is fetched from the system again (50 at once took 1.7 times as long an image, benchmarks/README.md).
CPU_DECODES = 4


@torch.no_grad()
def decode(vae: "Vae", latents: Tensor, scaling_factor: float) -> NDArray[np.uint8]:
    """Latents (B, C, h, w) -> uint8 RGB (B, H, W, 3).

    Raises:
        NotFiniteImages: a latent or a pixel is no number; carries the images.
    """
    at_once = CPU_DECODES if latents.device.type == "cpu" else len(latents)
    scaled = (latents / scaling_factor).to(vae.dtype)
    images = torch.cat([vae.decode(some).sample for some in scaled.split(max(1, at_once))])  # (B, 3, H, W) in [-1, 1]
    finite = latents.isfinite().flatten(1).all(dim=1) & images.isfinite().flatten(1).all(dim=1)  # (B,)
    images = images.masked_fill(~finite.view(-1, 1, 1, 1), -1.0)
    images = eight_bits(images)
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    pixels: NDArray[np.uint8] = images.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
    broken = [place for place, fine in enumerate(finite.tolist()) if not fine]
    if broken:
        raise NotFiniteImages(pixels, broken, len(pixels))
    return pixels


def stack_images(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 images (H, W) or (H, W, 3) of one size -> (B, 3, H, W) in [-1, 1]."""
    batch = np.stack([image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images])
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def encode(vae: "Vae", images: Sequence[NDArray[np.uint8]], scaling_factor: float) -> Tensor:
    """uint8 images (H, W) or (H, W, 3) of one size -> scaled latents (B, C, h, w), the posterior's mean.

    Raises:
        UserError: the autoencoder gives numbers that are not finite.
    """
    encoded = vae.encode(stack_images(images).to(vae.device, vae.dtype))
    # AutoencoderTiny has no posterior
    latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    if not latents.isfinite().all():
        raise UserError(
            "The autoencoder gives latents that are not finite: fetch its weights again, or take another one."
        )
    return latents.float() * scaling_factor


class FrozenAutoencoder:
    """Weights that are read at first use and belong to no module: neither trained, nor saved with a checkpoint.

    Args:
        source: folder, single file, ``hub:ORG/NAME`` or a dict with a ``checkpoint``; None means that there is none.
    """

    def __init__(self, source: Source | None) -> None:
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
            with torch.inference_mode(False):  # else no gradient would ever pass it, also later
                self._network = load_vae(self.source)
        with torch.inference_mode(False):
            return self._network.to(device)
