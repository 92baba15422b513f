"""Lightning modules."""

from lightning_modules.autoencoder import AutoencoderModule
from lightning_modules.domain_classifier import DomainClassifierModule
from lightning_modules.latent_diffusion import LatentDiffusionModule

__all__ = ["AutoencoderModule", "DomainClassifierModule", "LatentDiffusionModule"]
