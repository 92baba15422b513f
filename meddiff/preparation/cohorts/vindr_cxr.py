"""VinDr-CXR: boxes of several readers on PA views, from PhysioNet or from Kaggle's VinBigData competition.

The classes are mapped to the paper's eight (:data:`CLASSES`), the readers of an image are merged, and its labels are its
text. With PhysioNet's test set that is the grounding split, else images with boxes are drawn for it.
Source: Nguyen et al. 2022 (files and classes); mapping, merging and splits own. Written out in docs/cohorts_open.md.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.boxes_csv import (
    SAME_PLACE,
    draw_split,
    image_folder,
    in_order,
    is_image_id,
    label_phrases,
    label_prompt,
    number,
    overlap,
)
from meddiff.preparation.records import Funnel, Reading, Record, Rejected
from meddiff.preparation.rows import Row, Sieve, find_file, read_rows, require, zipped
from meddiff.shards.sample import Box

VINDR = "VinDr-CXR (physionet.org/content/vindr-cxr) or kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection"
#: Class as written there, lower case -> finding of the paper; "" is a finding outside the eight.
CLASSES = {
    "atelectasis": "Atelectasis",
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "lung opacity": "Lung Opacity",
    "pleural effusion": "Pleural Effusion",
    "pneumonia": "Pneumonia",
    "pneumothorax": "Pneumothorax",
    "no finding": NO_FINDING,
} | dict.fromkeys(
    (
        "aortic enlargement", "calcification", "clavicle fracture", "emphysema", "enlarged pa", "ild", "infiltration",
        "lung cavity", "lung cyst", "mediastinal shift", "nodule/mass", "other lesion", "pleural thickening",
        "pulmonary fibrosis", "rib fracture", "copd", "lung tumor", "tuberculosis", "other disease", "other diseases",
    ),
    "",
)  # fmt: skip
#: Classes judged for the whole image; in image_labels_*.csv alone, and without boxes.
GLOBAL = ("pneumonia", "copd", "lung tumor", "tuberculosis", "other disease", "other diseases", "no finding")
BOX = ("x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True)
class VindrCxrOptions:
    """Options of ``lightning prepare vindr-cxr``."""

    agreement: int = 1
    """Readers that must name a finding and box the same place (intersection over union of 0.4); 1 is the union of all.
    The test set is a consensus already."""
    annotations: str = ""
    """The csv of the training boxes relative to the root; empty looks for annotations_train.csv, then train.csv."""
    val: float = 0.05
    """Part of the training images that becomes val."""
    fidelity: float = 0.05
    """Part of the training images that becomes fidelity."""
    grounding: float = 0.1
    """Part of the training images with boxes that becomes grounding; used where there is no annotations_test.csv."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if self.agreement < 1 or min(self.val, self.fidelity, self.grounding) < 0 or self.val + self.fidelity > 1:
            raise UserError("vindr-cxr: agreement must be 1 or more, val, fidelity and grounding parts of 1.")


@dataclass
class _Image:
    """What all readers say about an image: finding -> readers; their boxes; and what they name outside the eight."""

    name: str
    subset: str
    votes: dict[str, set[str]] = field(default_factory=dict)
    boxes: list[tuple[str, Box]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    boxed: bool = False

    def vote(self, label: str, reader: str, written: str) -> None:
        if label:
            self.votes.setdefault(label, set()).add(reader)
        else:
            self.others.add(written)


def read(root: Path, options: VindrCxrOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: an official file is missing or damaged.
    """
    options, root = options or VindrCxrOptions(), Path(root)
    train, test, label_files = _files(root, options)
    listed = list(_rows(root, train, "train")) + (list(_rows(root, test, "test")) if test else [])
    rows = Sieve(listed, lambda row: f"{row['subset']}/{row['image_id']} (row {row['line']})", Funnel())
    rows.apply("malformed image_id", lambda row: None if is_image_id(row["image_id"]) else f"{row['image_id']!r}")
    rows.unique("repeated row", lambda row: tuple(value for name, value in row.items() if name != "line"))
    images: dict[tuple[str, str], _Image] = {}
    lost = [one for subset, file in label_files.items() for one in _enter_labels(root, file, subset, images)]
    for row in rows.items:
        images.setdefault((row["subset"], row["image_id"]), _Image(row["image_id"], row["subset"]))
    rows.apply("unknown class", lambda row: None if row["class_name"].lower() in CLASSES else row["class_name"])
    rows.apply("box is not four numbers", _bad_numbers)
    rows.apply("box without area", _bad_area)
    counts = Counter(row["subset"] for row in rows.items if row["x_min"])
    for row in rows.items:
        _enter(images[row["subset"], row["image_id"]], row)
    rows.apply("class outside the eight", lambda row: None if CLASSES[row["class_name"].lower()] else row["class_name"])
    funnel = Funnel()
    sieve = Sieve(images.values(), lambda image: f"{image.subset}/{image.name}", funnel)
    sieve.unique("repeated image", lambda image: image.name)
    kept = {image.name: _merge(image, options.agreement if image.subset == "train" else 1) for image in sieve.items}
    sieve.apply("no usable row", lambda image: None if image.votes or image.others else "every row is rejected")
    sieve.apply(
        "only findings outside the eight",
        lambda image: None if set(image.votes) - {NO_FINDING} or not image.others else ", ".join(sorted(image.others)),
    )
    sieve.apply("too few readers agree", lambda image: None if kept[image.name][0] else _votes(image))
    folders = {subset: image_folder(root, subset, VINDR) for subset in {image.subset for image in sieve.items}}
    share = 0.0 if test else options.grounding
    records = [_record(image, *kept[image.name], folders[image.subset], share, options) for image in sieve.items]
    records.sort(key=lambda record: record.key)
    facts = {
        "counts": {
            "boxes": dict(counts),
            "images": len(images),
            "images with boxes": sum(image.boxed for image in images.values()),
            **Counter(record.split for record in records),
        },
        "rows_removed": dict(sorted(Counter(one.rule for one in [*lost, *rows.rejected]).items())),
        "files": [train, *([test] if test else []), *label_files.values()],
    }
    return Reading(
        "vindr-cxr", root, records, funnel, [*lost, *rows.rejected, *sieve.rejected], asdict(options) | facts
    )


def _files(root: Path, options: VindrCxrOptions) -> tuple[str, str, dict[str, str]]:
    """Boxes of train and test ("" where there is no test set), and subset -> labels of whole images."""
    train = options.annotations or find_file(root, _official("annotations_train.csv"))
    if train and not options.annotations:
        labels = {"train": require(root, _official("image_labels_train.csv"), VINDR)}
        test = find_file(root, _official("annotations_test.csv")) or ""
        if test:
            labels["test"] = require(root, _official("image_labels_test.csv"), VINDR)
        return train, test, labels
    train = train or find_file(root, zipped("train.csv"))
    if not train:
        raise UserError(f"{root} holds no annotations_train.csv and no train.csv (nor the folders below it): {VINDR}.")
    return train, "", {}


def _official(name: str) -> tuple[str, ...]:
    """Where PhysioNet has a csv, and the same without its folder."""
    return (*zipped(f"annotations/{name}"), *zipped(name))


def _rows(root: Path, file: str, subset: str) -> Iterator[Row]:
    """Rows with what is used; the test set has no readers, it is their consensus."""
    for line, row in enumerate(read_rows(root, file, ("image_id", "class_name", *BOX)), 2):
        used = {name: row[name] for name in ("image_id", "class_name", *BOX)}
        yield used | {"rad_id": row.get("rad_id", ""), "line": str(line), "subset": subset}


def _bad_numbers(row: Row) -> str | None:
    cells = [row[name] for name in BOX]
    if not any(cells) and row["class_name"].lower() in GLOBAL:
        return None
    return f"{cells}" if any(math.isnan(number(cell)) for cell in cells) else None


def _bad_area(row: Row) -> str | None:
    if not row["x_min"]:
        return None
    x0, y0, x1, y1 = (number(row[name]) for name in BOX)
    return None if x1 > max(x0, 0) and y1 > max(y0, 0) else f"{x0, y0, x1, y1}"


def _enter(image: _Image, row: Row) -> None:
    label = CLASSES[row["class_name"].lower()]
    image.vote(label, row["rad_id"], row["class_name"])
    if row["x_min"]:
        image.boxed = True
        if label and label != NO_FINDING:
            x0, y0, x1, y1 = (number(row[name]) for name in BOX)
            image.boxes.append((row["rad_id"], Box(label, x0, y0, x1 - x0, y1 - y0)))


def _enter_labels(root: Path, file: str, subset: str, images: dict[tuple[str, str], _Image]) -> Iterator[Rejected]:
    """Votes for the classes that are judged for the whole image (the others come with their boxes); yields bad rows."""
    for line, row in enumerate(read_rows(root, file, ("image_id", "Pneumonia", "No finding")), 2):
        name = row["image_id"]
        if not is_image_id(name):
            yield Rejected(f"{file} (row {line})", "malformed image_id", f"{name!r}")
            continue
        image = images.setdefault((subset, name), _Image(name, subset))
        for column, value in row.items():
            if column.lower() in GLOBAL and number(value) == 1:
                image.vote(CLASSES[column.lower()], row.get("rad_id", ""), column)


def _votes(image: _Image) -> str:
    return ", ".join(f"{label} by {len(readers)}" for label, readers in sorted(image.votes.items()))


def _merge(image: _Image, agreement: int) -> tuple[tuple[str, ...], tuple[Box, ...]]:
    """Labels and boxes on which enough readers agree; "No Finding" where nobody names one of the eight."""
    boxes = [box for _, box in image.boxes if len(_seconded(box, image.boxes)) >= agreement]
    labels = {box.label for box in boxes}
    if len(image.votes.get("Pneumonia", ())) >= agreement:
        labels.add("Pneumonia")
    if not labels and set(image.votes) == {NO_FINDING}:
        labels = {NO_FINDING}
    return in_order(labels), tuple(dict.fromkeys(boxes))


def _seconded(box: Box, boxes: Iterable[tuple[str, Box]]) -> set[str]:
    """Readers with a box of the same finding in the same place, the one who drew this included."""
    return {reader for reader, other in boxes if other.label == box.label and overlap(box, other) >= SAME_PLACE}


def _record(
    image: _Image,
    labels: tuple[str, ...],
    boxes: tuple[Box, ...],
    folder: str,
    grounding: float,
    options: VindrCxrOptions,
) -> Record:
    address = (options.seed, "vindr-cxr", "split", image.name)
    drawn = draw_split(address, options.val, options.fidelity, grounding, bool(boxes))
    return Record(
        key=image.name,
        path=f"{folder}/{image.name}.dicom",
        split="grounding" if image.subset == "test" else drawn,
        patient_id=image.name,
        impression=label_prompt(labels),
        labels=labels,
        view="PA",
        phrases=label_phrases(boxes),
        boxes=boxes,
        attributes={"others": sorted(image.others), "readers": len(set().union(*image.votes.values()))},
    )
