"""One split of a folder of latent shards, read at random: latents, metadata, images and masks by index. Source: own."""

import io
import os
from copy import copy
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from meddiff.common.errors import UserError
from meddiff.shards.checked import LARGEST_PICTURE, parse_sample
from meddiff.shards.index import LATENT, METADATA, ShardIndex, ShardReader
from meddiff.shards.latents import Entry, parse_latent
from meddiff.shards.manifest import Manifest
from meddiff.shards.planning import keys_digest
from meddiff.shards.schema import SampleMetadata, StoredSample
from meddiff.shards.stored import with_latents


class LatentShardsDataset(Dataset[StoredSample]):
    """Samples of one split of a local shard folder in sorted key order, as they are stored.

    Attributes:
        payload: the member that a training batch is made of.

    Args:
        shards: the folder; split: name of the split; cache: keep the offset index beside the shards.

    Raises:
        UserError: no manifest, no such split, a broken shard, or a folder without latents.
    """

    payload: ClassVar[str] = LATENT

    def __init__(self, shards: str | Path, split: str, cache: bool = True) -> None:
        self.folder, self.split = Path(os.path.expanduser(shards)), split
        self.manifest = self.view(Manifest.read(shards), str(shards))
        self.index = ShardIndex(shards, self.manifest, split, cache, (self.payload, METADATA))
        self.reader = ShardReader(self.index)

    def view(self, manifest: Manifest, where: str) -> Manifest:
        """The manifest as it holds for what is read here.

        Raises:
            UserError: the folder does not hold that.
        """
        return with_latents(manifest, where)

    def only(self, samples: NDArray[np.int64]) -> Self:
        """Some of the samples, by rising number, as a data set of their own."""
        chosen = copy(self)
        chosen.index = self.index.only(samples)
        chosen.reader = ShardReader(chosen.index)
        return chosen

    @property
    def part(self) -> list[str]:
        """What tells a part of the split from the whole; nothing for the whole."""
        whole = len(self) == self.manifest.samples(self.split)
        return [] if whole else [keys_digest(self.keys)]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def keys(self) -> list[str]:
        return self.index.keys

    def __getitem__(self, sample: int) -> StoredSample:
        """Key, latent before scaling, and the metadata of ``KEY.json``."""
        return {"key": self.keys[sample], "latent": self.latent(sample), **self.metadata(sample)}

    def entry(self, sample: int, epoch: int | None, weight: float = 1.0) -> Entry:
        """The raw bytes of one sample, with what its draws are addressed by."""
        payload, metadata = self.reader.read(sample, self.payload), self.reader.read(sample, METADATA)
        return Entry(self.keys[sample], epoch, payload, metadata, self._where(sample), weight)

    def latent(self, sample: int) -> NDArray[np.float16]:
        """Stored moments (2C, h, w) or mean (C, h, w), before scaling."""
        try:
            return parse_latent(self.reader.read(sample, LATENT), self.manifest.stored_shape)
        except (ValueError, EOFError) as error:
            raise self._damaged(sample, error) from None

    def metadata(self, sample: int) -> SampleMetadata:
        """``KEY.json``: impression, captions, labels, phrases, boxes, ..."""
        try:
            return parse_sample(self.reader.read(sample, METADATA))
        except ValueError as error:
            raise self._damaged(sample, error) from None

    def image(self, sample: int) -> NDArray[np.uint8]:
        """The stored crop: uint8 (H, W) or (H, W, 3); grounding and fidelity splits only."""
        return np.asarray(self._open(sample, "png"))

    def masks(self, sample: int) -> dict[str, NDArray[np.bool_]]:
        """Exact masks: name -> bool (H, W); empty where none are known."""
        names = self.metadata(sample)["mask_names"]
        return {name: np.asarray(self._open(sample, f"mask.{slug}.png")) > 0 for slug, name in names.items()}

    def _open(self, sample: int, suffix: str) -> Image.Image:
        try:
            image = open_png(self.reader.read(sample, suffix), suffix)
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise self._damaged(sample, error) from None
        return image

    def _where(self, sample: int) -> str:
        return str(self.index.paths[self.index.shard[sample]])

    def _damaged(self, sample: int, error: Exception) -> UserError:
        return UserError(
            f"{self._where(sample)} holds a damaged sample {self.keys[sample]!r} ({error}): "
            "run prepare again for that shard"
        )


def open_png(data: bytes, what: str) -> Image.Image:
    """A stored picture whose pixels are not unpacked yet.

    Raises:
        OSError, SyntaxError, Image.DecompressionBombError: no PNG, or one that Pillow takes for a bomb.
        ValueError: it has more pixels than any picture of a cohort.
    """
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    if image.width * image.height > LARGEST_PICTURE:
        raise ValueError(f"{what} of {image.width} x {image.height} pixels, more than {LARGEST_PICTURE:,}")
    return image
