"""DICOM files with given pixels and tags."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

#: What tags of pictures hold.
Tag = str | int | float | list[int]


def write_dicom(path: Path, values: NDArray[np.integer], bits: int | None = None, **tags: Tag) -> Path:
    """An uncompressed DICOM file. Skips the test where pydicom is not installed.

    Args:
        values: (H, W) grey, or (H, W, 3) RGB; uint8, uint16 or int16 (with PixelRepresentation=1).
        bits: stored of those allocated; null means all of the type's.
        tags: by DICOM keyword, over those that ``values`` say.
    """
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1 if values.ndim == 2 else 3
    data.BitsAllocated = values.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    data.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()  # as the syntax above says
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path
