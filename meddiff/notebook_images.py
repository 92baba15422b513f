"""Images as people have them in a notebook: files, pictures, arrays. Source: own."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.preparation.images import UnreadableImage, read_image, to_uint8

#: A file, a picture, or an array (H, W), (H, W, 1) or (H, W, 3).
AnyImage = str | os.PathLike[str] | Image.Image | NDArray[np.generic]


def read_pixels(image: AnyImage) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3) of a file, a picture or an array.

    Raises:
        UserError: not there, damaged, or of another shape.
    """
    if isinstance(image, str | os.PathLike):
        try:
            return read_image(Path(os.path.expanduser(image)))
        except UnreadableImage as error:
            raise UserError(f"No image to ground at {image} ({error}): give a PNG, JPEG, TIFF or DICOM file.") from None
    if isinstance(image, Image.Image):
        grey = image.mode in ("1", "L")
        deep = image.mode.startswith(("I", "F"))
        image = np.asarray(image if deep else image.convert("L" if grey else "RGB"))
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or 0 in array.shape:
        raise UserError(f"The image has the shape {array.shape}: (H, W), (H, W, 1) or (H, W, 3) is needed.")
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise UserError(f"The image holds {array.dtype}: numbers are needed.")
    try:
        return to_uint8(array.astype(np.float64))
    except UnreadableImage as error:
        raise UserError(f"The image holds {error}: numbers are needed everywhere.") from None
