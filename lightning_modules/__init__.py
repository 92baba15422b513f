"""Lightning modules. Imported on demand, so that the command's quick check need not wait for torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_modules.autoencoder import AutoencoderModule
    from lightning_modules.domain_classifier import DomainClassifierModule
    from lightning_modules.latent_diffusion import LatentDiffusionModule
    from lightning_modules.patronus import PatronusModule
    from lightning_modules.prototype_prior import PrototypePriorModule
    from lightning_modules.sharding import FullyShardedStrategy
    from lightning_modules.text_tower import TextTowerModule

_HOMES = {
    "AutoencoderModule": "autoencoder",
    "DomainClassifierModule": "domain_classifier",
    "FullyShardedStrategy": "sharding",
    "LatentDiffusionModule": "latent_diffusion",
    "PatronusModule": "patronus",
    "PrototypePriorModule": "prototype_prior",
    "TextTowerModule": "text_tower",
}
__all__ = [
    "AutoencoderModule",
    "DomainClassifierModule",
    "FullyShardedStrategy",
    "LatentDiffusionModule",
    "PatronusModule",
    "PrototypePriorModule",
    "TextTowerModule",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
