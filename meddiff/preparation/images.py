"""Stored files as uint8 arrays: JPEG, PNG of 8 and 16 bits, TIFF, BMP, WebP and DICOM. Source: own.

Rules, the same for all cohorts:

- Pixels lie as in the file: a rotation in EXIF is not applied, because boxes are given for the file.
- 8 bits are taken as they are. More than 8 bits and floats are scaled by the image's own range: the smallest value
  becomes 0, the largest 255 (16-bit colour PNG: Pillow takes the upper 8 bits of each channel). A cohort's reader may take
  percentiles in the place of both ends.
- Values that stand for "nothing here" are no part of that range and come out black (:mod:`meddiff.preparation.pixels`).
- A TIFF whose smallest value is white is inverted, whatever its depth.
- Three equal channels are one grey channel. Palettes become RGB; transparency is laid on black.
- A file of several images (TIFF of pages, animated PNG or WebP, DICOM of frames) is left out: which is meant is not known.
- DICOM: :mod:`meddiff.preparation.dicom`.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.preparation.dicom import is_dicom, probe_dicom, read_dicom
from meddiff.preparation.pixels import (
    DAMAGED,
    FORMATS,
    UnreadableImage,
    nothing_here,
    one_channel_if_grey,
    reason,
    refuse_pages,
    refuse_what_is_no_file,
    to_uint8,
    white_is_zero,
)

__all__ = ["UnreadableImage", "decode_image", "probe", "read_image", "to_uint8"]


def read_image(path: str | Path, window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """The image of a file.

    Args:
        window: of grey images of more than 8 bits, the percentiles that become 0 and 255; None takes the whole range. DICOM
            has windows of its own.

    Returns:
        uint8 (H, W) grey or (H, W, 3) RGB.

    Raises:
        UnreadableImage: not there, no image, several images, corrupt or cut off.
        UserError: a DICOM file, and pydicom is not installed.
    """
    path = Path(path)
    refuse_what_is_no_file(path)
    try:
        image = read_dicom(path) if is_dicom(path) else _read_pillow(path, window)
    except (UnreadableImage, UserError):
        raise
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except DAMAGED as error:
        raise UnreadableImage(reason(error, path)) from error
    return _large_enough(image)


def decode_image(content: bytes) -> NDArray[np.uint8]:
    """The image of a file that lies in memory only; as :func:`read_image`, a DICOM file by its first bytes.

    Raises:
        UnreadableImage: no image, several images, corrupt or cut off.
        UserError: a DICOM file, and pydicom is not installed.
    """
    stream = BytesIO(content)
    try:
        image = read_dicom(stream) if content[128:132] == b"DICM" else _read_pillow(stream)
    except DAMAGED as error:
        raise UnreadableImage(reason(error, Path("the image"))) from error
    return _large_enough(image)


def probe(path: str | Path) -> tuple[int, int] | str:
    """(width, height) of an image, or why it is certainly unreadable; looks at its header only.

    Raises:
        UserError: as :func:`read_image`.
    """
    path = Path(path)
    try:
        refuse_what_is_no_file(path)
        if is_dicom(path):
            return probe_dicom(path)
        with Image.open(path, formats=FORMATS) as image:
            refuse_pages(image)
            return image.size
    except UserError:
        raise
    except UnreadableImage as error:
        return str(error)
    except FileNotFoundError:
        return "no such file"
    except DAMAGED as error:
        return reason(error, path)


def _large_enough(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if min(image.shape[:2]) < 2:
        raise UnreadableImage(f"only {image.shape[1]} x {image.shape[0]} pixels")
    return image


def _read_pillow(path: Path | BytesIO, window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    with Image.open(path, formats=FORMATS) as image:
        refuse_pages(image)
        if image.mode.startswith("I") or image.mode == "F":
            values = np.asarray(image)
            return to_uint8(values, nothing_here(image, values), inverted=white_is_zero(image), window=window)
        if image.mode in ("1", "L"):
            grey = np.asarray(image if image.mode == "L" else image.convert("L"))  # convert copies even what is grey
            nothing = nothing_here(image, grey)
            return grey if nothing is None else np.where(nothing, np.uint8(0), grey)
        if image.has_transparency_data:
            front = image.convert("RGBA")
            back = Image.new("RGBA", front.size, (0, 0, 0, 255))
            return one_channel_if_grey(np.asarray(Image.alpha_composite(back, front).convert("RGB")))
        rgb = np.asarray(image.convert("RGB"))
        nothing = nothing_here(image, rgb) if image.mode == "RGB" else None
    return one_channel_if_grey(rgb if nothing is None else np.where(nothing[..., None], np.uint8(0), rgb))
