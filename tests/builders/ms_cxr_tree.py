"""MS-CXR files of the official shape. Everything in them is made up."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.builders.files import write_table

COLUMNS = ("category_name", "label_text", "path", "dicom_id", "x", "y", "w", "h", "image_width", "image_height")
CSV = "MS_CXR_Local_Alignment_v1.0.0.csv"


def dicom_id(number: int) -> str:
    """The name of image ``number``."""
    return f"{number:08x}-aaaaaaaa-bbbbbbbb-cccccccc-dddddddd"


def path_of(number: int) -> str:
    """Where MIMIC-CXR-JPG has image ``number``; two images to a patient."""
    patient = 10_000_000 + number // 2
    return f"files/p10/p{patient}/s{50_000_000 + number}/{dicom_id(number)}.jpg"


def row(number: int, label: str, text: str, box: Sequence[float], **other: object) -> dict[str, object]:
    """A line of the csv: a phrase about image ``number`` with its (x, y, w, h); ``other`` cells over those."""
    sizes = {"image_width": 2544, "image_height": 3056}
    names = {"category_name": label, "label_text": text, "path": path_of(number), "dicom_id": dicom_id(number)}
    return {**names, **dict(zip("xywh", box, strict=True)), **sizes, **other}


def write_csv(
    root: Path, rows: Iterable[Mapping[str, object]], name: str = CSV, columns: Sequence[str] = COLUMNS
) -> Path:
    """The csv below ``root``, which is returned."""
    write_table(root / name, columns, rows)
    return root


def write_report(root: Path, number: int, text: str) -> None:
    """The report of image ``number``, beside the folder of its study."""
    path = root / path_of(number).rsplit("/", 1)[0]
    path = path.with_name(f"{path.name}.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
