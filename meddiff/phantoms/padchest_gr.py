"""Phantoms as the files of PadChest-GR: grounded reports (JSON), master table (csv), 16-bit PNGs. A twin without a request.

What ``lightning prepare padchest-gr`` reads of the real cohort it reads of this one, of which the truth is known. Images are
longer one way than the other (the phantom is the square in the middle), their grey values lie in a part of the 16 bits, and
a few pixels burnt white and dead ones would take the contrast of whoever scales by the whole range. Every second sentence
has boxes of a second reader, whose hand slips; each image denies findings that its phantom does not have, half of the time
without labels, as the real file does. Source: own; the form spec/evaluation_beyond.md section 10.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.draws import generator
from meddiff.common.files import atomic_open
from meddiff.common.findings import FINDINGS
from meddiff.phantoms.cohort import PhantomCohort
from meddiff.phantoms.options import PhantomOptions
from meddiff.shards.sample import Box, CohortSample

REPORTS, TABLE, IMAGES = "grounded_reports_20240819.json", "master_table.csv", "Padchest_GR_files/PadChest_GR"
COLUMNS = ("StudyID", "ImageID", "PatientID", "split", "label", "locations", "boxes_count", "extra_boxes_count",
           "PatientSex_DICOM", "prior_study", "prior_imageID", "progression_status", "study_is_benchmark",
           "study_is_validation", "sentence_en")  # fmt: skip
#: Finding -> a label of PadChest that means it.
LABELS = {
    "Atelectasis": "laminar atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Lung Opacity": "infiltrates",
    "Pleural Effusion": "pleural effusion",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
#: Finding -> how it is denied.
DENIALS = {
    "Atelectasis": "No atelectasis.",
    "Cardiomegaly": "Cardiac silhouette of normal size.",
    "Consolidation": "No consolidation is seen.",
    "Edema": "No pulmonary edema.",
    "Lung Opacity": "No infiltrates.",
    "Pleural Effusion": "No pleural effusion.",
    "Pneumonia": "No signs of pneumonia.",
    "Pneumothorax": "No pneumothorax.",
}
#: Split of a phantom -> that of PadChest-GR.
SPLITS = {"train": "train", "val": "validation", "grounding": "test", "fidelity": "test"}
#: Findings that an image denies; how far the second reader's hand slips, in parts of a box's side; black and white of 16 bits.
DENIED, SLIP, BLACK, STEP = 3, 0.08, 8000, 64
#: Pixels burnt white, and as many dead ones, in a thousand.
BURNT = 2

#: x1, y1, x2, y2 in parts of the image.
Corners = list[float]


def write_padchest_gr(folder: Path | str, options: PhantomOptions) -> Path:
    """The whole tree below ``folder``, which is returned; each file is whole or absent.

    Args:
        options: of the phantoms; ``resolution`` is the shorter side of the images.

    Raises:
        UserError: when the options ask for data that is not installed.
    """
    folder, cohort = Path(folder), PhantomCohort(options)
    studies, rows = [], []
    for index, sample in enumerate(cohort):
        image = f"{sample.key}.png"
        with atomic_open(folder / IMAGES / image) as stream:
            Image.fromarray(sixteen_bits(sample, options.seed, index)).save(stream, "PNG")
        findings = sentences(sample, options.seed, index)
        studies.append({"StudyID": sample.key, "ImageID": image, "findings": findings})
        about = {"StudyID": sample.key, "ImageID": image, "PatientID": sample.patient_id, "split": SPLITS[sample.split]}
        rows += [about | _row(one) for one in findings]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, text in ((REPORTS, json.dumps(studies, indent=1)), (TABLE, table.getvalue())):
        with atomic_open(folder / name, "w") as stream:
            stream.write(text)
    return folder


def margins(index: int, side: int) -> tuple[int, int]:
    """Pixels left of and above the phantom in its image: even ones are wider than high, odd ones higher than wide."""
    return (side // 8, 0) if index % 2 == 0 else (0, side // 8)


def sixteen_bits(sample: CohortSample, seed: int, index: int) -> NDArray[np.uint16]:
    """The image as a detector of 16 bits has it, with margins: (H, W), values from :data:`BLACK` in steps of :data:`STEP`."""
    across, down = margins(index, len(sample.image))
    values = np.pad(sample.image.astype(np.uint16) * STEP + BLACK, ((down, down), (across, across)), "edge")  # (H, W)
    number = max(1, values.size * BURNT // 1000)
    places = generator(seed, "padchest twin", "burnt", index).permutation(values.size)[: 2 * number]
    values.flat[places[:number]], values.flat[places[number:]] = 2**16 - 1, 0
    return values


def sentences(sample: CohortSample, seed: int, index: int) -> list[dict[str, object]]:
    """The report of a phantom, a dictionary a sentence: what is there, then what is denied."""
    draw = generator(seed, "padchest twin", "report", index)
    found: list[dict[str, object]] = []
    for phrase in sample.phrases:
        first = [_corners(box, len(sample.image), index) for box in phrase.boxes]
        second = [_slipped(box, draw) for box in first] if draw.random() < 0.5 else []
        found.append(_sentence(phrase.text, True, first, second, [LABELS[phrase.label]]))
    absent = [label for label in FINDINGS if label not in sample.labels]
    for place in sorted(draw.permutation(len(absent))[:DENIED]):
        label = absent[int(place)]
        denial = _sentence(DENIALS[label], False, [], [], [LABELS[label]])
        if draw.random() < 0.5:
            denial = {key: denial[key] for key in ("sentence_en", "sentence_es", "abnormal")}
        found.append(denial)
    return found


def _sentence(
    text: str, abnormal: bool, first: Sequence[Corners], second: Sequence[Corners], labels: Sequence[str]
) -> dict[str, object]:
    return {
        "sentence_en": text,
        "sentence_es": "",
        "abnormal": abnormal,
        "boxes": list(first),
        "extra_boxes": list(second),
        "labels": list(labels),
        "locations": [],
        "progression": None,
    }


def _row(sentence: dict[str, object]) -> dict[str, object]:
    """The row of a sentence in the master table, without what it says of the image."""
    labels, first, second = (sentence.get(key, []) for key in ("labels", "boxes", "extra_boxes"))
    assert isinstance(labels, list)
    assert isinstance(first, list)
    assert isinstance(second, list)
    return {
        "label": ", ".join(labels) if sentence["abnormal"] else "normal",
        "boxes_count": len(first),
        "extra_boxes_count": len(second),
        "study_is_benchmark": True,
        "study_is_validation": False,
        "sentence_en": sentence["sentence_en"],
    }


def _corners(box: Box, side: int, index: int) -> Corners:
    """A box in pixels of the phantom as parts of its image."""
    across, down = margins(index, side)
    width, height = side + 2 * across, side + 2 * down
    edges = (box.x + across) / width, (box.y + down) / height, (box.x + box.w + across) / width
    return [round(one, 6) for one in (*edges, (box.y + box.h + down) / height)]


def _slipped(box: Corners, draw: np.random.Generator) -> Corners:
    """The box of another reader: each edge up to :data:`SLIP` of a side elsewhere, within the image."""
    w, h = box[2] - box[0], box[3] - box[1]
    moved = (edge + float(draw.uniform(-SLIP, SLIP)) * size for edge, size in zip(box, (w, h, w, h), strict=True))
    return [round(min(max(one, 0.0), 1.0), 6) for one in moved]
