"""Stored pictures as what a network takes: any smaller side, one channel or three, from -1 to 1. Source: own."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.shards.dataset import LatentShardsDataset, open_png
from meddiff.shards.index import PICTURE
from meddiff.shards.latents import Entry
from meddiff.shards.manifest import Manifest
from meddiff.shards.planning import keys_digest
from meddiff.shards.stamp import Stamp
from meddiff.shards.stored import as_pixels

Floats = NDArray[np.float32]


def as_channels(picture: Image.Image, channels: int) -> Image.Image:
    """One channel (luminance, ITU-R 601) or three, whatever is stored."""
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def shrink(values: NDArray[np.uint8], side: int) -> Floats:
    """Area means: every pixel is the mean of the part of the picture it stands for, weighted by area.

    Args:
        values: (H, W, C).
        side: of the result, at most H and W.

    Returns:
        (C, side, side) float32, 0 to 255, not rounded.
    """
    planes = np.moveaxis(values, -1, 0)  # (C, H, W)
    if planes.shape[1:] == (side, side):
        return planes.astype(np.float32)
    rows = _means(planes.astype(np.float64).swapaxes(1, 2), side)  # (C, W, side)
    return _means(rows.swapaxes(1, 2), side).astype(np.float32)


def _means(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Means of ``side`` equal stretches of the last axis, by differences of running sums: the same bits anywhere, which a
    product of matrices has not."""
    length = values.shape[-1]
    edges = np.arange(side + 1) * length / side
    whole = np.minimum(edges.astype(np.int64), length - 1)
    sums = np.concatenate([np.zeros_like(values[..., :1]), np.cumsum(values, axis=-1)], axis=-1)
    up_to = sums[..., whole] + (edges - whole) * values[..., whole]  # what lies below each edge
    found: NDArray[np.float64] = np.diff(up_to, axis=-1) * (side / length)
    return found


def parse_picture(data: bytes, least: int) -> Image.Image:
    """Read ``KEY.png``.

    Raises:
        ValueError: no picture, not square, or a smaller one than ``least`` x ``least`` pixels.
    """
    try:
        picture = open_png(data, "picture")
        if picture.width != picture.height or picture.width < least:  # before its pixels are unpacked
            raise ValueError(f"picture of {picture.width} x {picture.height} pixels, not {least} x {least} or more")
        picture.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture ({error})") from None
    return picture


@dataclass(frozen=True)
class Pixels:
    """How a picture becomes a tensor.

    Attributes:
        side: of the result, at most that of the picture.
        channels: 1 or 3.
    """

    side: int
    channels: int

    def read(self, data: bytes, stamp: Stamp | None = None) -> Floats:
        """``KEY.png`` -> (channels, side, side) in [-1, 1].

        Args:
            stamp: drawn onto it.

        Raises:
            ValueError: it is damaged or of another size.
        """
        picture = as_channels(parse_picture(data, self.side), self.channels)
        if stamp is not None:
            stamp.draw(picture)
        values = np.asarray(picture).reshape(*picture.size[::-1], self.channels)
        return shrink(values, self.side) / np.float32(127.5) - np.float32(1)


class PicturesDataset(LatentShardsDataset):
    """One split of a folder whose every split has its pictures; pixels stand where latents are asked for.

    Args:
        shards, split, cache: as of the parent.
        resolution: side in pixels, at most the stored one; None: as stored.
        channels: 1 or 3.

    Raises:
        UserError: as of the parent; or the folder has no pictures, or smaller ones.
    """

    payload: ClassVar[str] = PICTURE

    def __init__(
        self, shards: str | Path, split: str, cache: bool = True, resolution: int | None = None, channels: int = 1
    ) -> None:
        self.resolution, self.channels = resolution, channels
        self.stamp: Stamp | None = None
        super().__init__(shards, split, cache)

    def view(self, manifest: Manifest, where: str) -> Manifest:
        """As :func:`meddiff.shards.stored.as_pixels`."""
        seen = as_pixels(manifest, where, self.resolution, self.channels)
        self.pixels = Pixels(seen.resolution, self.channels)
        return seen

    @property
    def part(self) -> list[str]:
        """As of the parent, and which pictures carry a stamp."""
        stamped = [key for key in self.keys if self.stamp is not None and key in self.stamp.keys]
        return [*super().part, *([keys_digest(stamped)] if stamped else [])]

    def entry(self, sample: int, epoch: int | None, weight: float = 1.0) -> Entry:
        """As of the parent, with the stamp of the sample."""
        return super().entry(sample, epoch, weight)._replace(stamp=self.stamp_of(sample))

    def stamp_of(self, sample: int) -> Stamp | None:
        """The stamp on a sample, if it carries one."""
        return self.stamp if self.stamp is not None and self.keys[sample] in self.stamp.keys else None

    def image(self, sample: int) -> NDArray[np.uint8]:
        """The stored picture, with its stamp."""
        picture, stamp = self._open(sample, PICTURE), self.stamp_of(sample)
        if stamp is not None:
            stamp.draw(picture)
        return np.asarray(picture)

    def latent(self, sample: int) -> Floats:  # type: ignore[override]  # halves would lose the last bit of an area mean
        """Pixels (C, h, w) in [-1, 1]."""
        try:
            return self.pixels.read(self.reader.read(sample, PICTURE), self.stamp_of(sample))
        except ValueError as error:
            raise self._damaged(sample, error) from None
