"""Models without a trainer: latent diffusion and its parts, feature extractors, weights. Imported on demand."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion

__all__ = ["LatentDiffusion"]


def __getattr__(name: str) -> object:
    if name != "LatentDiffusion":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from meddiff.models.latent_diffusion import LatentDiffusion

    return LatentDiffusion
