"""NIH ChestX-ray14: public chest X-rays with labels taken from reports by a program, and 984 boxes by a radiologist.

Files of the official release, in the root or up to two levels below: ``Data_Entry_2017_v2020.csv`` (or the first,
``Data_Entry_2017.csv``), ``BBox_List_2017.csv``, ``train_val_list.txt`` and ``test_list.txt``, and the images in
``images_001/images`` to ``images_012/images`` or in one folder ``images``. Any of the image folders may be missing, and
so may the boxes and the two lists; both tables may be compressed (``.csv.gz``).

There are no reports: an image's labels are its text. Labels are mapped to the paper's eight classes (:data:`CLASSES`).
Images with boxes become the grounding split, and their patients appear nowhere else.
Source: Wang et al. 2017 (data and official split); the mapping and the rules are own. Written out in docs/cohorts_nih.md.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.boxes_csv import in_order, label_phrases, label_prompt, number, on_image
from meddiff.preparation.records import Funnel, Reading, Record, Rejected
from meddiff.preparation.rows import Row, Sieve, find_file, read_rows, require
from meddiff.preparation.safe_files import open_text
from meddiff.shards.sample import Box

NIH = "NIH ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC, public)"
#: Every label of the release and of its boxes ("Infiltrate"); "" is none of the eight.
CLASSES = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Pleural Effusion",
    "Infiltration": "Lung Opacity",
    "Infiltrate": "Lung Opacity",
    "Mass": "Lung Opacity",
    "Nodule": "Lung Opacity",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Emphysema": "",
    "Fibrosis": "",
    "Hernia": "",
    "Pleural_Thickening": "",
    "No Finding": NO_FINDING,
}
#: The boxes' word for a label, and the entries' own.
SPELLED = {"Infiltrate": "Infiltration"}
OPACITIES = ("Infiltration", "Mass", "Nodule")
#: As ``csv`` splits the release's header ``Bbox [x,y,w,h]``.
BOX = ("Bbox [x", "y", "w", "h]")
LISTS = ("train_val_list.txt", "test_list.txt")
#: Width and height of every image of the release.
SIDE = 1024


@dataclass(frozen=True)
class NihOptions:
    """Options of ``lightning prepare nih``."""

    views: tuple[str, ...] = ("PA", "AP")
    """View positions that are used."""
    opacities: tuple[str, ...] = OPACITIES
    """Labels that count as "Lung Opacity", also those of boxes; those left out here count as findings outside the eight."""
    val: float = 0.02
    """Part of the patients of train_val_list.txt (of all patients, where there are no lists) that becomes val."""
    fidelity: int = 5000
    """Images drawn from test_list.txt for the fidelity set; where there are no lists, from a tenth of the patients."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if set(self.opacities) - set(OPACITIES) or not 0 <= self.val < 1 or self.fidelity < 0:
            raise UserError(
                f"nih: opacities are among {', '.join(OPACITIES)}; val is 0 or more and below 1, fidelity not negative."
            )


@dataclass
class _Image:
    name: str
    patient: str
    view: str
    written: tuple[str, ...]
    boxes: list[Box] = field(default_factory=list)
    boxed: bool = False  # also by a box that is not used
    split: str = ""

    @property
    def key(self) -> str:
        return self.name.removesuffix(".png")


def read(root: Path, options: NihOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: Data_Entry, the images or one of the two lists are missing, or a file is damaged.
    """
    options, root = options or NihOptions(), Path(root)
    names = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
    entries = require(root, [*names, *(f"{name}.gz" for name in names)], NIH)
    boxes_file = find_file(root, ["BBox_List_2017.csv", "BBox_List_2017.csv.gz", "BBox_list_2017.csv"])
    left_out = set(OPACITIES) - set(options.opacities)
    classes = {written: "" if SPELLED.get(written, written) in left_out else CLASSES[written] for written in CLASSES}
    files = _image_files(root)
    rows = read_rows(root, entries, ("Image Index", "Finding Labels", "Patient ID", "View Position"))
    funnel = Funnel()
    sieve = Sieve([_image(row) for row in rows], lambda image: image.name, funnel)
    sieve.apply("malformed image or patient", _malformed)
    for image in sieve.items:
        # the number is written as 1, 001 or 00000001, and one patient must not be taken for two
        image.patient = image.name[:8]
    sieve.unique("repeated image", lambda image: image.name)
    sieve.apply("unknown label", lambda image: ", ".join(one for one in image.written if one not in CLASSES) or None)
    by_name = {image.name: image for image in sieve.items}
    lost = _enter_boxes(root, boxes_file, classes, by_name) if boxes_file else []
    found = sum(len(image.boxes) for image in sieve.items)
    views = " or ".join(options.views)
    sieve.apply(f"view is not {views}", lambda image: None if image.view in options.views else image.view or "no view")
    sieve.apply("no image file", lambda image: None if image.name in files else f"not below {root.name}")
    sieve.apply(
        "only findings outside the eight",
        lambda image: None if _labels(image, classes) else ", ".join(image.written) or "no label",
    )
    lists = _split(root, sieve, options)
    records = [_record(image, files[image.name], classes) for image in sieve.items]
    records.sort(key=lambda record: record.key)
    facts = {
        "counts": {
            "boxes used": sum(len(record.boxes) for record in records),
            "boxes of listed images": found,
            **Counter(record.split for record in records),
        },
        "boxes_removed": dict(sorted(Counter(one.rule for one in lost).items())),
        "files": [entries, *([boxes_file] if boxes_file else []), *lists],
    }
    return Reading("nih", root, records, funnel, [*lost, *sieve.rejected], asdict(options) | facts)


def _image_files(root: Path) -> dict[str, str]:
    """Image name -> path relative to the root."""
    files: dict[str, str] = {}
    for pattern in ("images_[0-9][0-9][0-9]/images", "images", "*/images_[0-9][0-9][0-9]/images", "*/images"):
        for folder in sorted(root.glob(pattern)):
            for path in folder.glob("*.png"):
                files.setdefault(path.name, path.relative_to(root).as_posix())
        if files:
            return files
    raise UserError(f"{root} holds no folders images_001/images and no images with PNG files; they come from {NIH}.")


def _image(row: Row) -> _Image:
    labels = tuple(one.strip() for one in row["Finding Labels"].split("|") if one.strip())
    return _Image(row["Image Index"], row["Patient ID"], row["View Position"], labels)


def _malformed(image: _Image) -> str | None:
    # the patient is in both, and splits rest on it
    named, patient = re.fullmatch(r"([0-9]{8})_[0-9]{3}\.png", image.name), re.fullmatch("[0-9]{1,8}", image.patient)
    same = named and patient and int(named[1]) == int(patient[0])
    return None if same else f"{image.name!r}, {image.patient!r}"


def _enter_boxes(root: Path, file: str, classes: Mapping[str, str], images: Mapping[str, _Image]) -> list[Rejected]:
    """Give the images their boxes; returns the rows that are not used."""
    listed = read_rows(root, file, ("Image Index", "Finding Label", *BOX))
    rows = [{**row, "line": str(line)} for line, row in enumerate(listed, 2) if any(row.values())]
    sieve = Sieve(rows, lambda row: f"{row['Image Index']} ({Path(file).name}, row {row['line']})", Funnel())
    sieve.unique("repeated box", lambda row: tuple(row[name] for name in ("Image Index", "Finding Label", *BOX)))
    sieve.apply(
        "box of an image that is not listed",
        lambda row: None if row["Image Index"] in images else "not among the usable entries",
    )
    for row in sieve.items:
        images[row["Image Index"]].boxed = True
    sieve.apply(
        "box of an unknown label", lambda row: None if row["Finding Label"] in classes else row["Finding Label"]
    )
    sieve.apply(
        "box outside the eight classes",
        lambda row: None if classes[row["Finding Label"]] not in ("", NO_FINDING) else row["Finding Label"],
    )
    sieve.apply("box is not four numbers", _bad_numbers)
    sieve.apply("box without area or outside the image", _bad_area)
    for row in sieve.items:
        box = Box(classes[row["Finding Label"]], *(number(row[name]) for name in BOX))
        images[row["Image Index"]].boxes.append(box)
    return sieve.rejected


def _bad_numbers(row: Row) -> str | None:
    cells = [row[name] for name in BOX]
    return f"{cells}" if any(number(cell) != number(cell) for cell in cells) else None


def _bad_area(row: Row) -> str | None:
    box = tuple(number(row[name]) for name in BOX)
    return None if on_image(box, (SIDE, SIDE)) else f"{box}"


def _labels(image: _Image, classes: Mapping[str, str]) -> tuple[str, ...]:
    """Labels of the image and of its boxes; "No Finding" only where there is nothing else, not even outside the eight."""
    labels = {classes[one] for one in image.written} | {box.label for box in image.boxes}
    alone = set(image.written) == {NO_FINDING} and not image.boxed
    return in_order(label for label in labels if label and (label != NO_FINDING or alone))


def _split(root: Path, sieve: Sieve[_Image], options: NihOptions) -> list[str]:
    """Give the images their splits; returns the official lists that were used."""
    lists = [file for name in LISTS if (file := find_file(root, [name]))]
    if len(lists) == 1:
        raise UserError(
            f"{root} holds {lists[0]} but not the other of {' and '.join(LISTS)}: both come from {NIH}; with neither, "
            "patients are drawn."
        )
    boxed = {image.patient for image in sieve.items if image.boxes}
    if lists:
        train, test = (_names(root, file) for file in lists)
        sieve.apply(
            "in neither official list", lambda image: None if image.name in train | test or image.boxes else "no split"
        )
        held = {image.patient for image in sieve.items if image.name in test}
        sieve.apply(
            "training image of a patient of the test list",
            lambda image: None if image.name in test or image.patient not in held or image.boxes else image.patient,
        )
    else:
        patients = {image.patient for image in sieve.items}
        held = {one for one in patients if generator(options.seed, "nih", "test", one).random() < 0.1}
    sieve.apply(
        "image without a box of a patient with boxes",
        lambda image: None if image.boxes or image.patient not in boxed else image.patient,
    )
    for image in sieve.items:
        drawn = generator(options.seed, "nih", "val", image.patient).random() < options.val
        image.split = (
            "grounding" if image.boxes else "fidelity" if image.patient in held else "val" if drawn else "train"
        )
    queue = [image for image in sieve.items if image.split == "fidelity"]
    queue.sort(key=lambda image: float(generator(options.seed, "nih", "fidelity", image.name).random()))
    chosen = {image.name for image in queue[: options.fidelity]}
    sieve.apply(
        "test image not drawn for the fidelity set",
        lambda image: None if image.split != "fidelity" or image.name in chosen else "by its number",
    )
    return lists


def _names(root: Path, file: str) -> set[str]:
    try:
        with open_text(root, file) as stream:
            names = {line.strip() for line in stream if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): download it again.") from error
    if not names:
        raise UserError(f"{file} is empty: download it again; it comes from {NIH}.")
    return names


def _record(image: _Image, path: str, classes: Mapping[str, str]) -> Record:
    labels, boxes = _labels(image, classes), tuple(image.boxes)
    return Record(
        key=image.key,
        path=path,
        split=image.split,
        patient_id=image.patient,
        impression=label_prompt(labels),
        labels=labels,
        view=image.view,
        phrases=label_phrases(boxes),
        boxes=boxes,
        attributes={"nih_labels": list(image.written)} | ({"native_size": [SIDE, SIDE]} if boxes else {}),
    )
