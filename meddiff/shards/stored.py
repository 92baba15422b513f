"""What a folder of shards stores, and the manifest as it holds for who reads latents or pictures of it. Source: own."""

from dataclasses import replace
from typing import Literal, get_args

from meddiff.common.errors import UserError
from meddiff.shards.manifest import NO_VAE, Manifest
from meddiff.shards.schema import VaeIdentity

#: What ``lightning prepare --store`` may be told.
Store = Literal["latents", "images", "both"]
STORES: tuple[Store, ...] = get_args(Store)
#: The class of the autoencoder that changes nothing: where pixels stand for latents.
PIXELS = "PixelSpace"


def nothing_yet(cohort: str, resolution: int) -> Manifest:
    """What will be said of pictures of every split that are still to be made."""
    return Manifest(cohort, "", {}, NO_VAE, "none", (0, 0, 0), resolution, "none", pictures="all")


def with_latents(manifest: Manifest, where: str) -> Manifest:
    """The manifest itself.

    Raises:
        UserError: pictures alone are stored.
    """
    if manifest.latent == "none":
        raise UserError(
            f"{where} holds pictures and no latents: prepare the cohort {manifest.cohort} with --store both, or train on "
            "pixels (datamodules.ImageShardsDataModule)"
        )
    return manifest


def as_pixels(manifest: Manifest, where: str, resolution: int | None = None, channels: int = 1) -> Manifest:
    """The manifest as it holds for who reads pictures as if they were latents: their scale is 1, and nothing is shrunk.

    Args:
        where: the folder, for the sentence.
        resolution: side of the images that are read; None: as stored.
        channels: 1 or 3.

    Raises:
        UserError: pictures of every split are not stored, or only smaller ones.
    """
    if manifest.pictures != "all":
        raise UserError(
            f"{where} holds pictures of the splits of evaluation only: prepare the cohort {manifest.cohort} with "
            "--store images (or both) to train on pixels"
        )
    side = manifest.resolution if resolution is None else resolution
    if side > manifest.resolution:
        raise UserError(
            f"{where} holds pictures of {manifest.resolution} px, and {side} px are asked for: prepare the cohort "
            f"{manifest.cohort} with --resolution {side}, or ask for {manifest.resolution} or less"
        )
    name = f"{PIXELS}-{channels}"
    vae: VaeIdentity = {**NO_VAE, "class": PIXELS, "sha256": name, "source": name, "latent_channels": channels}
    return replace(manifest, vae=vae, latent="mean", latent_shape=(channels, side, side), resolution=side)
