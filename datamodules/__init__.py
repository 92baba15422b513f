"""Data modules: how batches come. Imported on demand, so that the command's quick check need not wait for torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.latent_shards import LatentShardsDataModule
    from datamodules.phantom import PhantomLatentsDataModule
    from datamodules.phantom_images import PhantomImagesDataModule
    from datamodules.phantom_texts import PhantomTextsDataModule

__all__ = ["LatentShardsDataModule", "PhantomImagesDataModule", "PhantomLatentsDataModule", "PhantomTextsDataModule"]

_HOMES = {
    "LatentShardsDataModule": "latent_shards",
    "PhantomImagesDataModule": "phantom_images",
    "PhantomLatentsDataModule": "phantom",
    "PhantomTextsDataModule": "phantom_texts",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
