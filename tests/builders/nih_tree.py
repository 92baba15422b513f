"""ChestX-ray14 of the NIH: small releases with the official names and headers."""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.builders.files import touch_images, write_lines

#: The first release ends its header, and each row, with a comma; ages are "058Y" there.
HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
HEADER_2020 = HEADER_2017.removesuffix(",")
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def entry(name: str, labels: str, patient: str | None = None, view: str = "PA", old: bool = False) -> str:
    """A row of Data_Entry; the patient is the first part of ``name`` unless given; ``old`` as the release of 2017."""
    age = "058Y" if old else "58"
    patient = str(int(name[:8])) if patient is None else patient
    return f"{name},{labels},0,{patient},{age},M,{view},2682,2749,0.143,0.143{',' if old else ''}"


def write_release(
    root: Path,
    entries: Sequence[str],
    boxes: Sequence[str] | None = None,
    train: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    images: Iterable[str] | Mapping[str, str] | None = None,
    old: bool = False,
) -> Path:
    """The release below ``root``, which is returned; its images are empty files.

    Args:
        entries: rows of Data_Entry, from :func:`entry`.
        boxes: rows of BBox_List; null means that the file is not there.
        train, test: names in the official lists, which are there when both are given.
        images: those there are, or each with its folder; null means those of ``entries``, in images_001.
        old: the release of 2017.
    """
    write_lines(
        root / ("Data_Entry_2017.csv" if old else "Data_Entry_2017_v2020.csv"),
        HEADER_2017 if old else HEADER_2020,
        *entries,
    )
    if boxes is not None:
        write_lines(root / "BBox_List_2017.csv", BOX_HEADER, *boxes)
    if train is not None and test is not None:
        # the official lists do not end with a line break
        (root / "train_val_list.txt").write_bytes("\n".join(train).encode())
        (root / "test_list.txt").write_bytes("\r\n".join(test).encode())
    names = [line.split(",")[0] for line in entries] if images is None else images
    for name in names:
        folder = root / (images[name] if isinstance(images, Mapping) else "images_001/images")
        touch_images(folder, [name] if name and "/" not in name else [])
    return root


def make_release(root: Path, lists: bool, order: int | None = None) -> Path:
    """400 patients of 3 images; patients 0 to 19 and 280 to 299 have a box on their second; the last 120 are the test list.

    Args:
        lists: with the official lists.
        order: a seed that shuffles the rows; null leaves them in order.
    """
    names = [f"{patient:08d}_{n:03d}.png" for patient in range(400) for n in range(3)]
    entries = [entry(name, "No Finding" if name.endswith("0.png") else "Edema") for name in names]
    if order is not None:
        random.Random(order).shuffle(entries)
    boxes = [f"{patient:08d}_001.png,Pneumonia,{patient},2,3,4" for patient in (*range(20), *range(280, 300))]
    test = [name for name in names if int(name[:8]) >= 280]
    return write_release(root, entries, boxes, *([[name for name in names if name not in test], test] if lists else []))
