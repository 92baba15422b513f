"""The table of ``lightning prepare folder``: its options, its rows, and boxes and masks as they may be written in it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.boxes_csv import number, on_image
from meddiff.preparation.images import UnreadableImage
from meddiff.preparation.mask_files import read_mask
from meddiff.preparation.records import Record, check_relative
from meddiff.preparation.safe_files import inside
from meddiff.shards.members import slug
from meddiff.shards.sample import Box

BOX = ("x", "y", "w", "h")


@dataclass(frozen=True)
class FolderOptions:
    """Options of ``lightning prepare folder``."""

    table: str = ""
    """CSV or JSONL relative to the root; empty looks for meta or metadata, .csv or .jsonl, also with .gz."""
    image: str = "image"
    """Column of the image's path."""
    id: str = ""
    """Column of the image's name; empty takes the path."""
    text: str = "text"
    """Column of the text."""
    labels: str = "labels"
    """Column of the labels."""
    separator: str = "|"
    """Between labels."""
    label_map: dict[str, str] = field(default_factory=dict)
    """Label (also of a box or mask) -> its name here, "" to leave it out; labels that are not named stay as they are."""
    split: str = "split"
    """Column of the split."""
    patient: str = "patient"
    """Column of the patient or group."""
    view: str = "view"
    """Column of the view."""
    boxes: str = "boxes"
    """Column of boxes as JSON."""
    masks: str = "masks"
    """Column of masks."""
    boxes_table: str = ""
    """CSV (or JSONL) of boxes relative to the root; empty takes boxes.csv if it is there."""
    boxes_image: str = "image"
    """Its column of the image's name."""
    val: float = 0.05
    """Without a column of splits: part of the patients that becomes val."""
    fidelity: float = 0.0
    """The same for fidelity."""
    grounding: float = 1.0
    """The same for grounding, of the patients with boxes or masks."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if min(self.val, self.fidelity, self.grounding) < 0 or self.val + self.fidelity > 1 or self.grounding > 1:
            raise UserError("folder: val, fidelity and grounding must be parts of 1.")
        if not self.separator:
            raise UserError("folder: the separator between labels is empty; give a character such as '|'.")

    def named(self) -> dict[str, str]:
        """Option -> column, of the columns that a table need not have."""
        return {name: getattr(self, name) for name in ("text", "labels", "split", "patient", "view", "boxes", "masks")}


@dataclass
class FolderImage:
    """A row of the table.

    Attributes:
        name: of the image; path: of its file; line: of the table.
        own_text: as written, may be empty; written: labels as written; mapped: those as they are called here.
        masks: name -> path; boxes: (phrase or "", box); others: columns without a meaning here.
        more: something was found on it that is left out, so that it is not healthy.
    """

    line: int
    name: str
    path: str
    patient: str
    view: str
    split: str
    written: list[str]
    mapped: list[str]
    own_text: str
    masks: dict[str, str]
    others: dict[str, object]
    boxes: list[tuple[str, Box]] = field(default_factory=list)
    more: bool = False

    @property
    def key(self) -> str:
        """The name in letters, digits, underscores and hyphens: ``a/b 1.png`` -> ``a-b_1``."""
        stem = re.sub(r"\.(png|jpe?g|tiff?|bmp|webp|dcm|dicom)$", "", self.name, flags=re.IGNORECASE)
        return re.sub(r"[^A-Za-z0-9_-]", "_", stem.replace("/", "-"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the image and of its boxes, once each, as they come; "No Finding" only where there is nothing else at all."""
        found = dict.fromkeys([*self.mapped, *(box.label for _, box in self.boxes if box.label)])
        alone = len(found) == 1 and not self.boxes and not self.more
        return tuple(label for label in found if label != NO_FINDING or alone)

    @property
    def text(self) -> str:
        """What the image is paired with: its own text, else its labels joined by blanks."""
        return self.own_text or " ".join(self.labels)


@dataclass(frozen=True)
class MaskFiles:
    """Masks of a record from the files its attributes name."""

    root: Path

    def __call__(self, record: Record, size: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
        """name -> bool (H, W).

        Raises:
            UnreadableImage: a mask cannot be read or is of another size.
        """
        masks = {}
        for name, path in record.attributes.get("mask_files", {}).items():
            try:
                mask = read_mask(inside(self.root, path))
            except UnreadableImage as error:
                raise UnreadableImage(f"mask {path}: {error}") from None
            if mask.shape != tuple(size):
                was = f"{mask.shape[1]} x {mask.shape[0]}"
                raise UnreadableImage(f"mask {path}: {was} pixels, its image has {size[1]} x {size[0]}")
            masks[name] = mask
        return masks


def cell(value: object) -> str:
    """What is written in a cell; 0 is a value, null is none."""
    return "" if value is None else str(value).strip()


def image_of(line: int, row: Mapping[str, object], options: FolderOptions, table: str) -> FolderImage:
    """A row of the table, understood.

    Raises:
        UserError: boxes or masks that cannot be understood, or a mask's path that leads out of the root.
    """
    where = f"{table}, row {line}"
    known = {name: row.get(column) for name, column in options.named().items()}
    used = {*options.named().values(), options.image, *BOX}
    labels = known["labels"]
    if labels in (None, "", []):
        labels = row.get("label")
        used.add("label")
    written = [cell(one) for one in (labels if isinstance(labels, list) else cell(labels).split(options.separator))]
    written = [one for one in written if one]
    mapped = [options.label_map.get(one, one) for one in written]
    path = cell(row.get(options.image))
    name = cell(row.get(options.id or options.image))
    image = FolderImage(
        line=line,
        name=name,
        path=path,
        # by the file, so that two rows of one file are one patient
        patient=cell(known["patient"]) or path,
        view=cell(known["view"]),
        split=cell(known["split"]),
        written=written,
        mapped=[label for label in mapped if label],
        own_text=" ".join(cell(known["text"]).split()),
        masks=_mask_paths(known["masks"], where, options),
        others={name: value for name, value in row.items() if name and name not in used and value not in ("", None)},
        more="" in mapped,
    )
    boxes = _listed_boxes(known["boxes"], where) if known["boxes"] not in (None, "") else []
    if any(cell(row.get(one)) for one in BOX):
        boxes.append({one: row.get(one) for one in (*BOX, "label", "phrase")})
    for box in boxes:
        if reason := bad_box(box):
            values = [box.get(one) for one in BOX]
            raise UserError(f"{where}: box {values} of {name} is not x, y, w, h with an area in the image: {reason}.")
        if box_label(image, box, options) == NO_FINDING:
            raise UserError(
                f"{where}: a box of {name} is labelled {NO_FINDING!r}, which has no place: mend one of them."
            )
        add_box(image, box, options)
    return image


def _listed_boxes(value: object, where: str) -> list[dict[str, object]]:
    """Boxes of the column: JSON, or already a list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{where}: boxes are not JSON ({error}): write [[x, y, w, h], ...].") from None
    found = []
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, list) and len(one) == 4:
            one = dict(zip(BOX, one, strict=True))
        if not isinstance(one, dict):
            raise UserError(f"{where}: {one!r} is not a box: write [[x, y, w, h], ...] or objects with x, y, w, h.")
        found.append(one)
    return found


def bad_box(values: Mapping[str, object]) -> str | None:
    """Why x, y, w, h are no box; None if they are one."""
    box = [number(cell(values.get(name))) for name in BOX]
    if any(one != one for one in box):
        return "not four numbers"
    return None if on_image(box) else "no area, or outside the image"


def box_label(image: FolderImage, values: Mapping[str, object], options: FolderOptions) -> str | None:
    """A box's label as it is called here: its own, else the image's if it has one only, else ""; None is left out."""
    label = cell(values.get("label")) or (image.written[0] if len(image.written) == 1 else "")
    return (options.label_map.get(label, label) or None) if label else ""


def add_box(image: FolderImage, values: Mapping[str, object], options: FolderOptions) -> bool:
    """Give an image a box (:func:`bad_box` is None), unless its label is left out; returns whether it was given."""
    label = box_label(image, values, options)
    if label is None:
        image.more = True
        return False
    x, y, w, h = (number(cell(values.get(name))) for name in BOX)
    image.boxes.append((" ".join(cell(values.get("phrase")).split()), Box(label, x, y, w, h)))
    return True


def _mask_paths(value: object, where: str, options: FolderOptions) -> dict[str, str]:
    """name as it is called here -> path, of the column of masks."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{where}: masks are not JSON ({error}).") from None
    elif isinstance(value, str):
        value = [part.partition("=")[::2] for part in value.split(";") if part.strip()]
    pairs = list(value.items()) if isinstance(value, dict) else value or []
    if not isinstance(pairs, list) or not all(
        isinstance(one, tuple) and cell(one[0]) and cell(one[1]) for one in pairs
    ):
        raise UserError(f"{where}: masks are name=path;name=path or an object name -> path.")
    masks: dict[str, str] = {}
    for name, path in ((cell(name), cell(path)) for name, path in pairs):
        check_relative(path)
        if label := options.label_map.get(name, name):
            if slug(label) in map(slug, masks):
                raise UserError(f"{where}: two masks would be stored as {slug(label)!r}: join them into one file.")
            masks[label] = path
    return masks
