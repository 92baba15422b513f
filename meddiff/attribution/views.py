"""What distances between latents are measured in: the latents, their decoded pixels, or features of these. Source: own."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.autoencoder import CPU_DECODES
from meddiff.models.feature_extractors import Extractor
from meddiff.models.latent_diffusion import LatentDiffusion

ViewName = Literal["features", "decoded", "latent"]
VIEWS: tuple[ViewName, ...] = get_args(ViewName)
#: Latents (B, C, h, w) -> rows (B, D) between which distances are Euclidean.
View = Callable[[Tensor], Tensor]


def decoded(model: LatentDiffusion, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) float32 in [-1, 1] of scaled latents (B, C, h, w), on their device; gradients pass.

    Raises:
        UserError: the model has no autoencoder.
    """
    vae = model.vae
    at_once = CPU_DECODES if latents.device.type == "cpu" else len(latents)
    scaled = (latents / model.scaling_factor).to(vae.dtype)
    images = torch.cat([vae.decode(some).sample for some in scaled.split(max(1, at_once))]).float()
    return images.clamp(-1, 1).expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.clamp(-1, 1)


def view(model: LatentDiffusion, name: ViewName | None = None, extractor: Extractor | None = None) -> View:
    """How latents are looked at.

    Args:
        name: None takes features where there is an extractor, else pixels where there is an autoencoder, else latents.
        extractor: from :func:`meddiff.models.feature_extractors.build_extractor`, on the model's device.

    Raises:
        UserError: features without an extractor, pixels without an autoencoder, or no such view.
    """
    if name is None:
        name = "latent" if model.autoencoder.source is None else "decoded" if extractor is None else "features"
    if name == "latent":
        return lambda latents: latents.flatten(1)
    if name not in VIEWS:
        raise UserError(f"view is {name!r}; it must be {', '.join(VIEWS[:-1])} or {VIEWS[-1]}.")
    _ = model.vae  # a missing one is told of now
    if name == "decoded":
        return lambda latents: decoded(model, latents).flatten(1)
    if extractor is None:
        raise UserError("view features needs a feature extractor: give one, or take view decoded or latent.")
    features = extractor
    return lambda latents: features(decoded(model, latents)).float()
