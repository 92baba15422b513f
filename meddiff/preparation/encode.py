"""From images to what a shard stores: the samples of some items, a VAE pass for each slice of them. Source: own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.models.autoencoder import stack_images
from meddiff.models.backbones import vae_identity
from meddiff.preparation.images import UnreadableImage
from meddiff.shards.access import Access
from meddiff.shards.manifest import NO_VAE, Manifest
from meddiff.shards.one_shard import Pair
from meddiff.shards.sample import CohortSample
from meddiff.shards.schema import VaeIdentity
from meddiff.shards.stored import Store

if TYPE_CHECKING:
    # their own modules: the names of the package are stand-ins for a type checker
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

Vae: TypeAlias = "AutoencoderKL | AutoencoderTiny"
#: What a sample is made of: its index in a cohort, or its record.
Item = TypeVar("Item")

#: Images a VAE pass takes. Fixed, not an option: the last bit of a convolution depends on it, and so would the bytes.
#: On a CPU core 4 are a fifth faster than 16, whose activations leave the cache (benchmarks/phantoms.py).
ENCODE_BATCH = 4


class Cohort(Protocol):
    """What a reader offers: samples by index, with their keys and splits known beforehand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CohortSample: ...

    def keys(self) -> Sequence[str]: ...

    def split_of(self, index: int) -> str: ...


def encode_images(vae: Vae, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
    """Posterior moments before scaling.

    Args:
        vae: ``AutoencoderTiny`` has no posterior.
        images: uint8 (H, W) or (H, W, 3).

    Returns:
        (B, 2C, h, w) mean and log-variance; (B, C, h, w) latents for ``AutoencoderTiny``. float16.

    Raises:
        UserError: they are not finite.
    """
    import torch

    pixels = stack_images(images)  # (B, 3, H, W)
    with torch.inference_mode():
        encoded = vae.encode(pixels.to(next(vae.parameters()).device))
    latents = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latents
    with np.errstate(over="ignore"):
        stored: NDArray[np.float16] = latents.float().cpu().numpy().astype(np.float16)
    if not np.isfinite(stored).all():
        raise UserError(
            "The autoencoder gives latents that are not finite in half precision: fetch its weights again, or prepare with "
            "another --vae."
        )
    return stored


def encoded_samples(cohort: Cohort, indices: Sequence[int], vae: Vae) -> Iterator[Pair]:
    """(sample, moments) of the given indices, in their order."""
    return encoded_slices(item_slices(cohort.__getitem__, indices, indices, ENCODE_BATCH), vae, {})


@dataclass
class Slice:
    """Some neighbouring items of a shard: the samples they gave, and key -> why there is none."""

    samples: list[CohortSample]
    unreadable: dict[str, str]


def item_slices(
    make: Callable[[Item], CohortSample], keys: Sequence[object], items: Sequence[Item], size: int
) -> Iterator[Slice]:
    """Make the samples of ``items``, ``size`` items at a time; an unreadable image leaves a slice smaller."""
    for start in range(0, len(items), size):
        yield make_slice(make, keys[start : start + size], items[start : start + size])


def make_slice(make: Callable[[Item], CohortSample], keys: Sequence[object], items: Sequence[Item]) -> Slice:
    """One slice; ``keys`` name the items."""
    done = Slice([], {})
    for key, item in zip(keys, items, strict=True):
        try:
            done.samples.append(make(item))
        except UnreadableImage as reason:
            done.unreadable[str(key)] = str(reason)
    return done


def encoded_slices(slices: Iterable[Slice], vae: "Vae | None", unreadable: dict[str, str]) -> Iterator[Pair]:
    """(sample, moments), one VAE pass a slice; what could not be read is entered into ``unreadable``.

    Args:
        vae: None where pictures alone are stored; moments are None then.
    """
    for one in slices:
        unreadable.update(one.unreadable)
        if vae is None:
            yield from ((sample, None) for sample in one.samples)
        elif one.samples:
            moments = encode_images(vae, [sample.image for sample in one.samples])
            yield from zip(one.samples, moments, strict=True)


def shard_header(
    name: str,
    command: str,
    options: Mapping[str, object],
    vae: str,
    resolution: int,
    resize: str,
    access: Access | None = None,
    store: Store = "latents",
) -> Manifest:
    """The manifest's header for a cohort of square images encoded with ``vae``.

    Args:
        store: "latents" (pictures of the splits of evaluation beside them), "images" of every split, for which ``vae`` is
            not looked at, or "both".
        access: of the cohort; None as its name says (:func:`meddiff.shards.access.access_of`).

    Raises:
        UserError: no VAE, or the resolution does not fit it.
    """
    about = Manifest(
        cohort=name,
        command=command,
        options=dict(options),
        vae=NO_VAE,
        latent="none",
        latent_shape=(0, 0, 0),
        resolution=resolution,
        resize=resize,
        access=access,
        pictures="evaluation" if store == "latents" else "all",
    )
    if store == "images":
        if resolution < 1:
            raise UserError(f"resolution is {resolution}: give 1 or more pixels.")
        return about
    identity = cast(VaeIdentity, vae_identity(vae))
    side, left_over = divmod(resolution, identity["downsample"])
    if left_over or side < 1:
        raise UserError(
            f"resolution {resolution} is no multiple of {identity['downsample']}, what this VAE shrinks by."
        )
    latent: Literal["moments", "mean"] = "moments" if identity["class"] == "AutoencoderKL" else "mean"
    return replace(about, vae=identity, latent=latent, latent_shape=(identity["latent_channels"], side, side))
