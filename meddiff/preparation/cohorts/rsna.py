"""RSNA Pneumonia Detection Challenge 2018: boxes of lung opacities on NIH chest X-rays, as Kaggle distributes them.

"Lung Opacity" keeps its boxes, "Normal" is "No Finding", and "No Lung Opacity / Not Normal" says that something else is
there but not what, so it is left out unless asked for. An image's labels are its text.
Source: Shih et al. 2019 (files and classes); splits and checks own. Written out in docs/cohorts_open.md.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.boxes_csv import (
    draw_split,
    image_folder,
    is_image_id,
    label_phrases,
    label_prompt,
    number,
    on_image,
)
from meddiff.preparation.records import Funnel, Reading, Record
from meddiff.preparation.rows import Row, Sieve, find_file, read_rows, require
from meddiff.preparation.safe_files import open_text
from meddiff.shards.sample import Box

RSNA = "the RSNA Pneumonia Detection Challenge (kaggle.com/competitions/rsna-pneumonia-detection-challenge)"
OPACITY, NORMAL, OTHER = "Lung Opacity", "Normal", "No Lung Opacity / Not Normal"
BOX = ("x", "y", "width", "height")
#: Width and height of every image of the challenge.
SIDE = 1024


@dataclass(frozen=True)
class RsnaOptions:
    """Options of ``lightning prepare rsna``."""

    not_normal: Literal["reject", "unlabelled"] = "reject"
    """Images that are "No Lung Opacity / Not Normal": left out, or kept without label and text."""
    mapping: str = ""
    """RSNA's json of the NIH image behind each image, relative to the root, so that no patient is in two splits; empty
    looks for pneumonia-challenge-dataset-mappings_2018.json."""
    val: float = 0.05
    """Part of the patients that becomes val."""
    fidelity: float = 0.05
    """Part of the patients that becomes fidelity."""
    grounding: float = 0.1
    """Part of the patients with boxes that becomes grounding."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if min(self.val, self.fidelity, self.grounding) < 0 or self.val + self.fidelity > 1:
            raise UserError("rsna: val, fidelity and grounding must be parts of 1.")


@dataclass
class _Image:
    name: str
    boxes: list[Box] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)


def read(root: Path, options: RsnaOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: an official file is missing or damaged.
    """
    options, root = options or RsnaOptions(), Path(root)
    labels = require(root, _official("stage_2_train_labels.csv"), RSNA)
    details = require(root, _official("stage_2_detailed_class_info.csv"), RSNA)
    rows = _sieve(root, labels, ("patientId", *BOX, "Target"))
    images = {row["patientId"]: _Image(row["patientId"]) for row in rows.items}
    rows.apply("box and Target contradict", _bad_target)
    rows.apply("box is not four numbers", _bad_numbers)
    rows.apply("box without area or outside the image", _bad_area)
    for row in rows.items:
        if row["Target"] == "1":
            x, y, w, h = (number(row[name]) for name in BOX)
            images[row["patientId"]].boxes.append(Box(OPACITY, x, y, w, h))
    # the class is repeated for each box
    classes = _sieve(root, details, ("patientId", "class"), unique=False)
    classes.apply("unknown class", lambda row: None if row["class"] in (OPACITY, NORMAL, OTHER) else row["class"])
    classes.apply("class of an image without labels", lambda row: None if row["patientId"] in images else "not listed")
    for row in classes.items:
        images[row["patientId"]].classes.add(row["class"])
    mapping, patients = _patients(root, options.mapping)
    funnel = Funnel()
    sieve = Sieve(images.values(), lambda image: image.name, funnel)
    sieve.apply("not exactly one class", lambda image: None if len(image.classes) == 1 else f"{sorted(image.classes)}")
    sieve.apply("class and boxes contradict", _contradiction)
    if options.not_normal == "reject":
        sieve.apply(OTHER, lambda image: OTHER if OTHER in image.classes else None)
    folder = image_folder(root, "stage_2_train_images", RSNA)
    patient = {image.name: patients.get(image.name, image.name) for image in sieve.items}
    boxed = {patient[image.name] for image in sieve.items if image.boxes}
    records = [_record(image, folder, patient[image.name], boxed, options) for image in sieve.items]
    records.sort(key=lambda record: record.key)
    facts = {
        "counts": {
            "boxes": sum(row["Target"] == "1" for row in rows.items),
            "images": len(images),
            "images with boxes": sum(bool(image.boxes) for image in images.values()),
            "images whose patient is known": sum(image.name in patients for image in sieve.items),
            **Counter(record.split for record in records),
        },
        "rows_removed": dict(sorted(Counter(one.rule for one in [*rows.rejected, *classes.rejected]).items())),
        "files": [labels, details, *([mapping] if mapping else [])],
    }
    rejected = [*rows.rejected, *classes.rejected, *sieve.rejected]
    return Reading("rsna", root, records, funnel, rejected, asdict(options) | facts)


def _official(name: str) -> tuple[str, ...]:
    """A csv as Kaggle's archive has it, or packed, as a single file is downloaded."""
    return (name, f"{name}.zip", f"{name}.gz")


def _sieve(root: Path, file: str, columns: tuple[str, ...], unique: bool = True) -> Sieve[Row]:
    """Rows with an identifier; equal rows once."""
    rows = [
        {name: row[name] for name in columns} | {"line": str(line)}
        for line, row in enumerate(read_rows(root, file, columns), 2)
    ]
    sieve = Sieve(rows, lambda row: f"{row['patientId']} ({Path(file).name}, row {row['line']})", Funnel())
    sieve.apply("malformed patientId", lambda row: None if is_image_id(row["patientId"]) else f"{row['patientId']!r}")
    if unique:
        sieve.unique("repeated row", lambda row: tuple(row[name] for name in columns))
    return sieve


def _bad_target(row: Row) -> str | None:
    boxed = any(row[name] for name in BOX)
    return (
        None if row["Target"] == str(int(boxed)) else f"Target {row['Target']!r} {'with' if boxed else 'without'} box"
    )


def _bad_numbers(row: Row) -> str | None:
    cells = [row[name] for name in BOX]
    return f"{cells}" if row["Target"] == "1" and any(math.isnan(number(cell)) for cell in cells) else None


def _bad_area(row: Row) -> str | None:
    if row["Target"] == "0":
        return None
    box = tuple(number(row[name]) for name in BOX)
    return None if on_image(box, (SIDE, SIDE)) else f"{box}"


def _contradiction(image: _Image) -> str | None:
    if (OPACITY in image.classes) == bool(image.boxes):
        return None
    return f"{', '.join(image.classes)} with {len(image.boxes)} usable boxes"


def _patients(root: Path, mapping: str) -> tuple[str, Mapping[str, str]]:
    """The file and image -> NIH patient, the number before "_" of 00000061_012.png; "" and {} where it is not there."""
    file = mapping or find_file(root, ["pneumonia-challenge-dataset-mappings_2018.json"])
    if not file:
        return "", {}
    try:
        with open_text(root, file) as stream:
            pairs = [(str(one["subset_img_id"]), str(one["img_id"])) for one in json.load(stream)]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{file} is not RSNA's mapping to NIH images ({type(error).__name__}: {error}).") from error
    return file, {image: match[1] for image, name in pairs if (match := re.match(r"(\d{8})_\d{3}\b", name))}


def _record(image: _Image, folder: str, patient: str, boxed: set[str], options: RsnaOptions) -> Record:
    labels = {OPACITY: (OPACITY,), NORMAL: (NO_FINDING,), OTHER: ()}[next(iter(image.classes))]
    boxes = tuple(image.boxes)
    address = (options.seed, "rsna", "split", patient)
    return Record(
        key=image.name,
        path=f"{folder}/{image.name}.dcm",
        split=draw_split(address, options.val, options.fidelity, options.grounding, patient in boxed),
        patient_id=patient,
        impression=label_prompt(labels),
        labels=labels,
        phrases=label_phrases(boxes),
        boxes=boxes,
        attributes={"native_size": [SIDE, SIDE], "class": next(iter(image.classes))},
    )
