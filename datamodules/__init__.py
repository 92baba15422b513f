"""Data modules: how batches come. Imported on demand, so that the command's quick check need not wait for torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.image_shards import ImageShardsDataModule
    from datamodules.latent_shards import LatentShardsDataModule
    from datamodules.phantom import PhantomLatentsDataModule
    from datamodules.phantom_images import PhantomImagesDataModule
    from datamodules.phantom_pixels import PhantomPixelsDataModule
    from datamodules.phantom_texts import PhantomTextsDataModule
    from datamodules.shortcut import ShortcutDataModule, ShortcutLatentsDataModule
    from datamodules.steps import StepsDataModule

__all__ = [
    "ImageShardsDataModule",
    "LatentShardsDataModule",
    "PhantomImagesDataModule",
    "PhantomLatentsDataModule",
    "PhantomPixelsDataModule",
    "PhantomTextsDataModule",
    "ShortcutDataModule",
    "ShortcutLatentsDataModule",
    "StepsDataModule",
]

_HOMES = {
    "ImageShardsDataModule": "image_shards",
    "LatentShardsDataModule": "latent_shards",
    "PhantomImagesDataModule": "phantom_images",
    "PhantomLatentsDataModule": "phantom",
    "PhantomPixelsDataModule": "phantom_pixels",
    "PhantomTextsDataModule": "phantom_texts",
    "ShortcutDataModule": "shortcut",
    "ShortcutLatentsDataModule": "shortcut",
    "StepsDataModule": "steps",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
