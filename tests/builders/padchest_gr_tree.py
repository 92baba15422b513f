"""PadChest-GR: small trees with the official names and keys, from entries written by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from meddiff.common.draws import generator
from tests.builders.files import write_table

REPORTS, FOLDER = "grounded_reports_20240819.json", "Padchest_GR_files/PadChest_GR"
COLUMNS = ("StudyID", "ImageID", "PatientID", "split", "label", "boxes_count", "PatientSex_DICOM")


def said(text: str, *labels: str, boxes: Sequence[object] = (), extra: Sequence[object] = ()) -> dict[str, object]:
    """A sentence that says that something is there."""
    return {"sentence_en": text, "sentence_es": "", "abnormal": True, "boxes": list(boxes), "extra_boxes": list(extra),
            "labels": list(labels), "locations": ["basal"], "progression": None}  # fmt: skip


def denied(text: str, *labels: str) -> dict[str, object]:
    """A sentence that denies something; without labels it lacks the keys, as in the real file."""
    found: dict[str, object] = {"sentence_en": text, "sentence_es": "", "abnormal": False}
    return found | ({"labels": list(labels), "boxes": []} if labels else {})


def study(image: str, *findings: object) -> dict[str, object]:
    """An entry of the JSON."""
    return {"StudyID": f"s-{image}", "ImageID": image, "PreviousStudyID": None, "findings": list(findings)}


def row(image: str, split: str = "test", patient: str = "", **more: object) -> dict[str, object]:
    """A row of the master table."""
    return {"ImageID": image, "split": split, "PatientID": patient or image, "PatientSex_DICOM": "F", **more}


def write_sixteen(path: Path, size: tuple[int, int] = (80, 64)) -> Path:
    """A PNG of 16 bits of its own, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(generator("tree", path.name).integers(0, 256, (6, 6)).astype(np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.uint16)
    Image.fromarray(smooth * 20 + 3000).save(path)
    return path


def write_padchest(
    root: Path, studies: object, rows: Sequence[Mapping[str, object]], images: Sequence[str] | None = None
) -> Path:
    """The tree below ``root``, which is returned.

    Args:
        studies: what the JSON holds.
        images: names of images to write; None takes those of ``rows``.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / REPORTS).write_text(json.dumps(studies), encoding="utf-8")
    write_table(root / "master_table.csv", COLUMNS, rows)
    for name in dict.fromkeys(str(one["ImageID"]) for one in rows) if images is None else images:
        write_sixteen(root / FOLDER / name)
    return root
