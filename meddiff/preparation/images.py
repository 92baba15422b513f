"""Stored files as uint8 arrays: JPEG, PNG of 8 and 16 bits, TIFF, BMP, WebP and DICOM. Source: own.

Rules, the same for all cohorts:

- Pixels lie as in the file: a rotation in EXIF is not applied, because boxes are given for the file.
- 8 bits are taken as they are. More than 8 bits and floats are scaled by the image's own range: the smallest value
  becomes 0, the largest 255 (16-bit colour PNG: Pillow takes the upper 8 bits of each channel).
- Three equal channels are one grey channel. Palettes become RGB; transparency is laid on black.
- DICOM: rescale slope and intercept, then the file's own lookup table or window (the first of several; none: the whole
  range), MONOCHROME1 inverted, then scaled by the range as above.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.errors import UserError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
DICOM_SUFFIXES = (".dcm", ".dicom")
#: Pixels scaled at a time: so many float64 stay in the cache, which is 5 times as fast as whole radiographs.
_BLOCK = 1 << 16
#: What Pillow and pydicom raise for files that are cut off or are something else.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, RuntimeError,
            NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip


class UnreadableImage(Exception):
    """A file that holds no usable image; the text says why, without its path, so that it is the same on any machine."""


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """The image of a file.

    Returns:
        uint8 (H, W) grey or (H, W, 3) RGB.

    Raises:
        UnreadableImage: not there, no image, corrupt or cut off.
        UserError: a DICOM file, and pydicom is not installed.
    """
    path = Path(path)
    try:
        image = _read_dicom(path) if is_dicom(path) else _read_pillow(path)
    except (UnreadableImage, UserError):
        raise
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except _DAMAGED as error:
        raise UnreadableImage(_reason(error, path)) from error
    if min(image.shape[:2]) < 2:
        raise UnreadableImage(f"only {image.shape[1]} x {image.shape[0]} pixels")
    return image


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """The mask of an image file: True where a value (of a palette: its number; of colours: any but alpha) is not 0.

    Returns:
        bool (H, W).

    Raises:
        UnreadableImage: as :func:`read_image`.
    """
    path = Path(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            values = np.asarray(image)
            bands = image.getbands()
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except _DAMAGED as error:
        raise UnreadableImage(_reason(error, path)) from error
    if values.ndim == 3:
        values = values[..., : len(bands) - (bands[-1] == "A")].max(axis=2)
    inside: NDArray[np.bool_] = values != 0
    return inside


def probe(path: str | Path) -> str | None:
    """Why a file is certainly unreadable, or None; looks at its first bytes only."""
    try:
        if not is_dicom(Path(path)):
            with Image.open(path, formats=FORMATS):
                pass
    except FileNotFoundError:
        return "no such file"
    except _DAMAGED as error:
        return _reason(error, Path(path))
    return None


def is_dicom(path: Path) -> bool:
    """Whether the file says so: by its name, or by ``DICM`` after 128 bytes."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        path.stat()
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def to_uint8(values: NDArray[np.number]) -> NDArray[np.uint8]:
    """Scale by the range: min becomes 0, max 255, rounded; an image of one value becomes 0.

    Args:
        values: any real type and shape.

    Raises:
        UnreadableImage: not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableImage("pixels that are not finite")
    factor = 255.0 / (high - low) if high > low else 0.0
    scaled = np.empty(values.size, np.uint8)
    flat = values.reshape(-1)
    for start in range(0, values.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float64)
        block -= low
        block *= factor
        scaled[start : start + _BLOCK] = np.rint(block, out=block)
    return scaled.reshape(values.shape)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)}, DICOM)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).replace(str(path), path.name).split())[:200] or type(error).__name__


def _read_pillow(path: Path) -> NDArray[np.uint8]:
    with Image.open(path, formats=FORMATS) as image:
        if image.mode.startswith("I") or image.mode == "F":
            return to_uint8(np.asarray(image))
        if image.mode in ("1", "L"):
            return np.asarray(image if image.mode == "L" else image.convert("L"))  # convert copies even what is grey
        if image.has_transparency_data:
            front = image.convert("RGBA")
            image_rgb = Image.alpha_composite(Image.new("RGBA", front.size, (0, 0, 0, 255)), front).convert("RGB")
        else:
            image_rgb = image.convert("RGB")
    return _one_channel_if_grey(np.asarray(image_rgb))


def _one_channel_if_grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of (H, W, 3), the first channel when all are equal."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    same = np.array_equal(red, green) and np.array_equal(red, blue)
    return np.ascontiguousarray(red) if same else rgb


def _read_dicom(path: Path) -> NDArray[np.uint8]:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise UserError(
            f"{path} is a DICOM file, and reading it needs pydicom: install it with `pip install 'meddiff-tradeoff[dicom]'`."
        ) from None
    try:
        data = pydicom.dcmread(path)
    except InvalidDicomError:
        raise UnreadableImage("not a DICOM file") from None
    colours = str(data.get("PhotometricInterpretation", ""))
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames != 1 or colours == "PALETTE COLOR" or "PixelData" not in data:
        what = f"{frames} frames" if frames != 1 else "a colour palette" if "PixelData" in data else "no pixels"
        raise UnreadableImage(f"DICOM with {what}")
    pixels = data.pixel_array
    if pixels.ndim == 3:  # pydicom has already turned YBR into RGB
        return _one_channel_if_grey(pixels if pixels.dtype == np.uint8 else to_uint8(pixels))
    values = np.asarray(apply_voi_lut(apply_modality_lut(pixels, data), data, index=0))
    grey = to_uint8(values)
    return 255 - grey if colours == "MONOCHROME1" else grey
