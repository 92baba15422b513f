"""DICOM files as uint8 arrays, by their own rescaling, window, padding and inversion. Source: own; PS3.3 of the standard.

- Padding (PixelPaddingValue, with PixelPaddingRangeLimit up to that) is no part of the range and comes out black.
- Slope and intercept, then the file's lookup table, else the first of its windows that is possible: a width below 1 (of
  LINEAR_EXACT and SIGMOID: not above 0) or a number that is not finite is no window. Without any: the whole range.
- A table or window that leaves one value of many lies wholly beside the data; that file is left out.
"""

import math
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.preparation.pixels import UnreadableImage, one_channel_if_grey, to_uint8

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom")


def is_dicom(path: Path) -> bool:
    """Whether the file says so: by its name, or by ``DICM`` after 128 bytes."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        path.stat()
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_dicom(path: Path | BytesIO) -> NDArray[np.uint8]:
    """The image, uint8 (H, W) grey or (H, W, 3) RGB.

    Raises:
        UnreadableImage: not one picture that can be shown.
        UserError: pydicom is not installed.
    """
    data = _read(path, stop_before_pixels=False)
    if "PixelData" not in data:
        raise UnreadableImage("DICOM with no pixels")
    _check(data)
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

    pixels = data.pixel_array
    if pixels.ndim == 3:  # pydicom has already turned YBR into RGB
        return one_channel_if_grey(pixels if pixels.dtype == np.uint8 else to_uint8(pixels))
    padding = _padding(data, pixels)
    values = np.asarray(apply_modality_lut(pixels, data))
    before = values if padding is None else values[~padding]
    window = _window(data)
    if data.get("VOILUTSequence"):
        values = np.asarray(apply_voi_lut(values, data, index=0))
    elif window is not None:
        values = np.asarray(apply_windowing(values, data, index=window))
        if "RescaleIntercept" in data and float(data.get("RescaleSlope", 1)) < 0:
            values = -values  # pydicom maps a window to the rescaled ends of the stored range, here turned round
    after = values if padding is None else values[~padding]
    if after.size and after.min() == after.max() and before.min() != before.max():
        what = "lookup table" if data.get("VOILUTSequence") else "window"
        ends = f"{float(before.min()):g} to {float(before.max()):g}"
        raise UnreadableImage(f"DICOM whose {what} lies wholly beside its pixels ({ends})")
    return to_uint8(values, padding, inverted=data.get("PhotometricInterpretation") == "MONOCHROME1")


def probe_dicom(path: Path) -> tuple[int, int]:
    """(width, height), by the header alone.

    Raises:
        UnreadableImage: it says that there is not one picture that can be shown.
        UserError: pydicom is not installed.
    """
    data = _read(path, stop_before_pixels=True)
    _check(data)
    return int(data.Columns), int(data.Rows)


def _read(path: Path | BytesIO, stop_before_pixels: bool) -> "Dataset":
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise UserError(
            f"{path if isinstance(path, Path) else 'This'} is a DICOM file, and reading it needs pydicom: install it with "
            "`pip install 'meddiff-tradeoff[dicom]'`."
        ) from None
    try:
        data = dcmread(path, stop_before_pixels=stop_before_pixels)
    except InvalidDicomError:
        raise UnreadableImage("not a DICOM file") from None
    for name in ("RescaleSlope", "RescaleIntercept"):  # an empty one is none
        if name in data and data.get(name) in (None, ""):
            delattr(data, name)
    return data


def _check(data: "Dataset") -> None:
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise UnreadableImage(f"DICOM with {frames} frames")
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise UnreadableImage("DICOM with a colour palette")
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    if not (slope and math.isfinite(slope) and math.isfinite(intercept)):
        raise UnreadableImage(
            f"DICOM with a rescaling of {slope:g} * value + {intercept:g}, which leaves nothing to see"
        )


def _padding(data: "Dataset", pixels: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Which stored pixels are padding, (H, W); None where there are none."""
    ends = [data.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    numbers = [int(one) for one in ends if isinstance(one, int)]
    if not isinstance(ends[0], int):
        return None
    if pixels.dtype.kind == "i":  # the tag may have been written as if it were unsigned
        bits = 8 * pixels.dtype.itemsize
        numbers = [one - 2**bits if one >= 2 ** (bits - 1) else one for one in numbers]
    found = (pixels >= min(numbers)) & (pixels <= max(numbers))
    return found if found.any() else None


def _window(data: "Dataset") -> int | None:
    """Which of the file's windows is the first that is possible; None where none is."""
    centres, widths = (_numbers(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    linear = str(data.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    for place, (centre, width) in enumerate(zip(centres, widths, strict=False)):
        if math.isfinite(centre) and math.isfinite(width) and (width >= 1 if linear else width > 0):
            return place
    return None


def _numbers(value: object) -> list[float]:
    """One number or several, as a tag may hold; an empty one is not a number."""
    several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return [math.nan if one in (None, "") else float(str(one)) for one in several]
