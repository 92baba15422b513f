"""Pixels as files store them: what is no image, which values stand for "nothing here", and any range as 8 bits. Source: own.

Values that stand for nothing are no part of an image's range, and come out black:

- of a TIFF: the number its tag GDAL_NODATA names; of a grey PNG: its transparent value (tRNS);
- of floats: infinitely small or large by intent (1e30 and beyond, such as the largest float32);
- of signed numbers and floats: -9999, -99999, -32767, -32768 and -2147483648, where it is the smallest value and all others
  are nearer to 0 than to it.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from meddiff.common.text_files import no_file

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
#: What Pillow and pydicom raise for files that are cut off or are something else.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, RuntimeError,
           NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip
#: Pixels scaled at a time: so many float64 stay in the cache, which is 5 times as fast as whole radiographs.
_BLOCK = 1 << 16
_SENTINELS = (-9999, -32767, -32768, -99999, -2147483648)
_PHOTOMETRIC, _BITS, _NODATA = 262, 258, 42113


class UnreadableImage(Exception):
    """A file that holds no usable image; the text says why, without its path, so that it is the same on any machine."""


def reason(error: Exception, path: Path) -> str:
    """What one of :data:`DAMAGED` says about a file, in one line without its folder."""
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)}, DICOM)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).replace(str(path), path.name).split())[:200] or type(error).__name__


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse a folder, pipe or device: opened, a pipe would wait for a writer that never comes.

    Raises:
        UnreadableImage: one of them lies there.
    """
    if (kind := no_file(path)) is not None:
        raise UnreadableImage(f"{kind}, not a file")


def refuse_pages(image: Image.Image) -> None:
    """Refuse a file of several images: which of them is meant is not known (a thumbnail may come first).

    A camera's JPEG with previews behind it (MPO) is its first image by definition.

    Raises:
        UnreadableImage: a TIFF of pages, an animated PNG or WebP.
    """
    pages = int(getattr(image, "n_frames", 1))
    if pages > 1 and image.format != "MPO":
        raise UnreadableImage(f"{image.format} with {pages} pages")


def white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF says that its smallest value is white; Pillow itself inverts up to 8 bits only."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def nothing_here(image: Image.Image, values: NDArray[np.number]) -> NDArray[np.bool_] | None:
    """Which pixels of a grey or RGB image stand for nothing, (H, W); None where there are none.

    Args:
        values: of the image as Pillow gives them, (H, W) or (H, W, 3).
    """
    numbers: list[float] = []
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and image.mode in ("1", "L", "I;16"):
        numbers.append(transparent)
    if (nodata := _nodata(image)) is not None:
        eight = values.dtype == np.uint8 and values.ndim == 2
        # Pillow has inverted such pixels, but not the tag
        numbers.append(255 - nodata if eight and white_is_zero(image) else nodata)
    found: NDArray[np.bool_] = np.zeros(values.shape, bool)
    for number in numbers:
        found |= _equal(values, number)
    if values.dtype.kind == "f":
        found |= np.abs(values) >= 1e30
    if values.dtype.kind in "fi" and (low := values.min()) in _SENTINELS:
        others = values[values != low]
        if others.size and others.min() > low / 2:
            found |= _equal(values, float(low))
    pixels: NDArray[np.bool_] = np.asarray(found.all(axis=2) if found.ndim == 3 else found, bool)
    return pixels if pixels.any() else None


def to_uint8(
    values: NDArray[np.number],
    nothing: NDArray[np.bool_] | None = None,
    inverted: bool = False,
    window: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Scale by the range: min becomes 0, max 255, rounded; an image of one value becomes 0.

    Args:
        values: any real type and shape.
        nothing: of the same shape, pixels that are no part of the range and come out 0.
        inverted: min becomes 255, max 0.
        window: percentiles of the values (0 to 100) that become 0 and 255 in the place of min and max, what lies beyond them
            with them; the whole range where both are one value.

    Raises:
        UnreadableImage: not finite, or nothing but nothing.
    """
    inside = values if nothing is None else values[~nothing]
    if not inside.size:
        raise UnreadableImage("every pixel stands for nothing (padding, no data)")
    low, high = float(inside.min()), float(inside.max())
    if not np.isfinite(high - low):
        raise UnreadableImage("pixels that are not finite")
    clipped = False
    if window is not None:
        ends = np.percentile(inside, window)
        if ends[1] > ends[0]:
            low, high, clipped = float(ends[0]), float(ends[1]), True
    factor = 255.0 / (high - low) if high > low else 0.0
    scaled = np.empty(values.size, np.uint8)
    flat = values.reshape(-1)
    empty = None if nothing is None else nothing.reshape(-1)
    for start in range(0, values.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float64)
        if empty is not None:
            block[empty[start : start + _BLOCK]] = low
        block -= low
        block *= factor
        if clipped:
            np.clip(block, 0.0, 255.0, out=block)
        scaled[start : start + _BLOCK] = np.rint(block, out=block)
    if inverted:
        np.subtract(255, scaled, out=scaled)
    if empty is not None:
        scaled[empty] = 0
    return scaled.reshape(values.shape)


def one_channel_if_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of (H, W, 3), the first channel when all are equal."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    same = np.array_equal(red, green) and np.array_equal(red, blue)
    return np.ascontiguousarray(red) if same else rgb


def _equal(values: NDArray[np.number], number: float) -> NDArray[np.bool_]:
    same = np.isnan(values) if number != number else values == np.float64(number).astype(values.dtype)
    return np.asarray(same, bool)


def _nodata(image: Image.Image) -> float | None:
    """The number of the tag GDAL_NODATA, if the pixels can hold it."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    try:
        number = float(str(image.tag_v2.get(_NODATA, "")).strip(" \0"))
    except ValueError:
        return None
    if image.mode == "F":
        return number
    bits = image.tag_v2.get(_BITS, (8,))[0]
    whole = number == number and number.is_integer() and abs(number) < 2**31
    # Pillow stretches fewer bits to 8, so that the number would mean another grey
    return number if whole and bits >= 8 and (number >= 0 or image.mode.startswith("I")) else None
