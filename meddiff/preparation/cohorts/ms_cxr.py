"""MS-CXR: phrases of radiology reports with boxes, on images of MIMIC-CXR-JPG; the paper's grounding set.

Source: Boecking et al. 2022 (the data); Dombrowski et al. 2024, Tables 1 and 6 (1,162 pairs of image and phrase). Read
from ``MS_CXR_Local_Alignment_v1.0.0.csv`` and later versions (one row a box), or from the COCO json of the same name.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.preparation.cells import says_nothing
from meddiff.preparation.cohorts.boxes_csv import on_image
from meddiff.preparation.cohorts.mimic_files import Reports, folder_above, image_path, is_identifier
from meddiff.preparation.records import Funnel, Reading, Record
from meddiff.preparation.reports_text import SECTIONS, TextRules, one_line
from meddiff.preparation.rows import Sieve, find_file, read_rows
from meddiff.preparation.safe_files import open_text
from meddiff.shards.sample import Box, Phrase

#: Pairs of image and phrase in the paper (version 1.0.0).
PAPER_PAIRS = 1162
PHYSIONET = "MS-CXR (physionet.org/content/ms-cxr, credentialed access)"
COLUMNS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height")


@dataclass(frozen=True)
class MsCxrOptions:
    """Options of ``lightning prepare ms-cxr``."""

    file: str = ""
    """The csv or json of MS-CXR relative to the root; empty looks for the csv, then the json."""
    pairs: Literal["phrase", "class"] = "phrase"
    """phrase: one text for each (image, class, phrase), boxes of one phrase together; class: one for each (image, class),
    its text the impression and its boxes those of all phrases of the class."""
    missing_impression: Literal["phrase", "reject"] = "phrase"
    """Images whose report is not there or has no impression: their phrases stand in, or they are left out (as in the paper's
    class sets)."""
    reports: str = ""
    """Zip of the reports of MIMIC-CXR, or folder that holds their files/, relative to the root; empty looks for it."""
    text: TextRules = SECTIONS
    """How impressions are cut out of reports."""


@dataclass(frozen=True)
class _Row:
    """One box; ``line`` is its place in the file."""

    line: int
    dicom_id: str
    label: str
    text: str
    path: str
    box: tuple[float, float, float, float]
    size: tuple[float, float]
    split: str

    @property
    def name(self) -> str:
        return f"{self.dicom_id} (row {self.line})"


def read(root: Path, options: MsCxrOptions | None = None) -> Reading:
    """The cohort below ``root``, a record an image, all in the split "grounding".

    Raises:
        UserError: the file of MS-CXR is missing or damaged.
    """
    options, root = options or MsCxrOptions(), Path(root)
    name = options.file or find_file(root, ["MS_CXR_Local_Alignment_v*.csv", "MS_CXR_Local_Alignment_v*.csv.gz"])
    name = name or find_file(root, ["MS_CXR_Local_Alignment_v*.json"])
    if not name:
        raise UserError(
            f"{root} holds no MS_CXR_Local_Alignment_v*.csv (nor the folders below it); it comes from {PHYSIONET}."
        )
    rows = _json_rows(root, name) if name.endswith(".json") else _csv_rows(root, name)
    funnel = Funnel()
    sieve = Sieve(rows, lambda row: row.name, funnel)
    sieve.apply("path is not one of MIMIC-CXR-JPG", _bad_path)
    sieve.apply("box or size is no number", _bad_numbers)
    sieve.apply("box without area or outside the image", _bad_box)
    sizes: dict[str, tuple[float, float]] = {}
    for row in sieve.items:
        sizes.setdefault(row.dicom_id, row.size)
    sieve.apply(
        "image size differs from that of the image's first row",
        lambda row: None if row.size == sizes[row.dicom_id] else f"{row.size} and {sizes[row.dicom_id]}",
    )
    sieve.apply("no phrase", lambda row: None if row.text else "label_text is blank")
    sieve.unique("box that occurs twice for a phrase", lambda row: (row.dicom_id, row.label, row.text, row.box))
    images: dict[str, list[_Row]] = {}
    for row in sieve.items:
        images.setdefault(row.dicom_id, []).append(row)
    identifiers = [_identifiers(rows[0].path)[:2] for rows in images.values()]
    reports = Reports(root, options.reports, options.text, identifiers)
    impressions = {
        dicom: found.text
        for dicom, pair in zip(images, identifiers, strict=True)
        if (found := reports.impression(*pair)) is not None and found.text
    }
    if options.missing_impression == "reject":
        sieve.apply("image without an impression", lambda row: None if row.dicom_id in impressions else "no report")
    prefix = _image_prefix(root)
    kept = {row.dicom_id for row in sieve.items}
    records = [_record(images[dicom], impressions.get(dicom), prefix, options.pairs) for dicom in sorted(kept)]
    funnel.keep("boxes put together by image (what is left are images)", len(records))
    phrases = [phrase for record in records for phrase in record.phrases]
    facts = {
        "counts": {
            "boxes": len(sieve.items),
            "images": len(records),
            "pairs": len(phrases),
            "pairs by class": dict(sorted(Counter(phrase.label for phrase in phrases).items())),
            "images with an impression": sum(dicom in impressions for dicom in kept),
        },
        "paper_pairs": PAPER_PAIRS,
        "files": [name],
    }
    return Reading("ms-cxr", root, records, funnel, sieve.rejected, asdict(options) | facts)


def _csv_rows(root: Path, name: str) -> Iterator[_Row]:
    for line, row in enumerate(read_rows(root, name, COLUMNS), 2):
        yield _row(line, row, row["path"])


def _json_rows(root: Path, name: str) -> Iterator[_Row]:
    """The same boxes out of the COCO json: images (path, width, height), annotations (bbox, label_text), categories."""
    try:
        with open_text(root, name) as stream:
            value = json.load(stream)
        images = {image["id"]: image for image in value["images"]}
        categories = {category["id"]: category["name"] for category in value["categories"]}
        for line, one in enumerate(value["annotations"], 1):
            image = images[one["image_id"]]
            x, y, w, h = one["bbox"]
            row = {
                "dicom_id": Path(str(image["file_name"])).stem,
                "category_name": categories[one["category_id"]],
                "label_text": one["label_text"],
                "x": x, "y": y, "w": w, "h": h,
                "image_width": image["width"],
                "image_height": image["height"],
                "split": one.get("split") or image.get("split") or "",
            }  # fmt: skip
            yield _row(line, row, str(image["path"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{name} is not the json of MS-CXR ({type(error).__name__}: {error}): use the csv instead."
        ) from error


def _row(line: int, row: Mapping[str, object], path: str) -> _Row:
    x, y, w, h, width, height = (_number(row[column]) for column in COLUMNS[4:])
    text, label = (one_line(str(row[name] or "")) for name in ("label_text", "category_name"))
    text = "" if says_nothing(text) else text
    split = str(row.get("split") or "")
    return _Row(line, str(row["dicom_id"]), label, text, path, (x, y, w, h), (width, height), split)


def _number(value: object) -> float:
    if not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _identifiers(path: str) -> tuple[str, str, str]:
    """Patient, study and dicom of ``files/p10/p10000032/s50414267/DICOM.jpg``; blank where it has another shape."""
    parts = path.split("/")
    if len(parts) < 4 or not parts[-1].lower().endswith((".jpg", ".jpeg", ".dcm")):
        return "", "", ""
    subject, study, dicom = parts[-3], parts[-2], parts[-1].rsplit(".", 1)[0]
    return subject.removeprefix("p"), study.removeprefix("s"), dicom


def _bad_path(row: _Row) -> str | None:
    subject, study, dicom = _identifiers(row.path)
    if not is_identifier(dicom, subject, study):
        return f"path {row.path!r}"
    # the path is made anew from the identifiers, so nothing else of this one is used
    if not image_path(subject, study, dicom).startswith(row.path.rsplit(".", 1)[0]):
        return f"path {row.path!r} is not {image_path(subject, study, dicom)}"
    return None if dicom == row.dicom_id else f"path {row.path!r} is of another image"


def _bad_numbers(row: _Row) -> str | None:
    values = (*row.box, *row.size)
    return None if all(math.isfinite(value) for value in values) else f"{values}"


def _bad_box(row: _Row) -> str | None:
    return None if on_image(row.box, row.size) else f"{row.box} in an image of {row.size}"


def _image_prefix(root: Path) -> str:
    """Where ``files/`` of MIMIC-CXR-JPG is: beside its metadata when they are there, else below the root."""
    metadata = find_file(root, ["mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv"])
    return folder_above(metadata) if metadata else ""


def _record(rows: list[_Row], impression: str | None, prefix: str, pairs: str) -> Record:
    """One image with its phrases, in the order of the file."""
    subject, study, dicom = _identifiers(rows[0].path)
    texts = dict.fromkeys(row.text for row in rows)
    text = impression or " ".join(one if one.endswith((".", "!", "?")) else f"{one}." for one in texts)
    groups: dict[tuple[str, str], list[Box]] = {}
    for row in rows:
        box = Box(row.label, *row.box)
        boxes = groups.setdefault((row.label, row.text if pairs == "phrase" else text), [])
        if box not in boxes:
            boxes.append(box)
    labels = {row.label for row in rows}
    return Record(
        key=dicom,
        path=prefix + image_path(subject, study, dicom),
        split="grounding",
        patient_id=subject,
        impression=text,
        labels=(*(one for one in FINDINGS if one in labels), *sorted(labels - set(FINDINGS))),
        phrases=tuple(Phrase(words, label, tuple(boxes)) for (label, words), boxes in groups.items()),
        boxes=tuple(dict.fromkeys(Box(row.label, *row.box) for row in rows)),
        attributes={
            "study_id": study,
            "native_size": [int(rows[0].size[0]), int(rows[0].size[1])],
            "impression_from": "report" if impression else "phrases",
            "ms_cxr_split": rows[0].split,
        },
    )
