"""The table of ``lightning prepare folder``: its options, its rows, and boxes and masks as they may be written in it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from preparation.cohorts.boxes_csv import number
from preparation.cohorts.mimic_files import read_rows
from preparation.images import UnreadableImage, read_mask
from preparation.records import Record, check_relative
from preparation.safe_files import inside, open_text
from preparation.sample import NO_FINDING, Box

BOX = ("x", "y", "w", "h")


@dataclass(frozen=True)
class FolderOptions:
    """Options of ``lightning prepare folder``."""

    table: str = ""
    """CSV or JSONL relative to the root; empty looks for meta or metadata, .csv or .jsonl."""
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
    """Label (also of a box) -> its name here, "" to leave it out; labels that are not named stay as they are."""
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
    """CSV of boxes relative to the root; empty takes boxes.csv if it is there."""
    boxes_image: str = "image"
    """Its column of the image's name."""
    val: float = 0.05
    """Without a column of splits: part of the patients that becomes val."""
    fidelity: float = 0.0
    """The same for fidelity."""
    grounding: float = 1.0
    """The same for grounding, of the patients with boxes."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if min(self.val, self.fidelity, self.grounding) < 0 or self.val + self.fidelity > 1 or self.grounding > 1:
            raise UserError("folder: val, fidelity and grounding must be parts of 1.")


@dataclass
class FolderImage:
    """A row of the table.

    Attributes:
        name: of the image; path: of its file; line: of the table.
        text: as written, may be empty; written: labels as written; mapped: those as they are called here.
        masks: name -> path; boxes: (phrase or "", box); others: columns without a meaning here.
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
    others: dict[str, Any]
    boxes: list[tuple[str, Box]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The name in letters, digits, underscores and hyphens: ``a/b 1.png`` -> ``a-b_1``."""
        stem = re.sub(r"\.(png|jpe?g|tiff?|bmp|webp|dcm|dicom)$", "", self.name, flags=re.IGNORECASE)
        return re.sub(r"[^A-Za-z0-9_-]", "_", stem.replace("/", "-"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the image and of its boxes, once each, as they come; "No Finding" only where it is alone."""
        found = dict.fromkeys([*self.mapped, *(box.label for _, box in self.boxes if box.label)])
        return tuple(label for label in found if label != NO_FINDING or len(found) == 1)

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


def table_rows(root: Path, table: str, options: FolderOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of the table."""
    if not table.endswith((".jsonl", ".jsonl.gz")):
        yield from enumerate(read_rows(root, table, [options.image, *([options.id] if options.id else [])]), 2)
        return
    with open_text(root, table) as stream:
        for line, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise UserError(f"{table}, line {line} is not JSON ({error}): mend it.") from None
            if not isinstance(row, dict) or options.image not in row:
                raise UserError(
                    f"{table}, line {line} has no {options.image!r}: every line is an object with the image's path."
                )
            yield line, row


def image_of(line: int, row: dict[str, Any], options: FolderOptions, table: str) -> FolderImage:
    """A row of the table, understood.

    Raises:
        UserError: boxes or masks that cannot be understood, or a mask's path that leads out of the root.
    """
    where = f"{table}, row {line}"
    columns = {
        name: getattr(options, name) for name in ("text", "labels", "split", "patient", "view", "boxes", "masks")
    }
    known = {name: row.get(column) for name, column in columns.items()}
    used = {*columns.values(), options.image, *BOX, "label"}
    labels: Any = known["labels"] or row.get("label") or ()
    written = labels if isinstance(labels, list | tuple) else str(labels).split(options.separator)
    written = [one for label in written if (one := str(label).strip())]
    name = str(row.get(options.id or options.image) or "")
    image = FolderImage(
        line=line,
        name=name,
        path=str(row[options.image] or ""),
        patient=str(known["patient"] or name),
        view=str(known["view"] or ""),
        split=str(known["split"] or ""),
        written=written,
        mapped=[label for one in written if (label := options.label_map.get(one, one))],
        own_text=" ".join(str(known["text"] or "").split()),
        masks=_mask_paths(known["masks"], where),
        others={name: value for name, value in row.items() if name and name not in used and value not in ("", None)},
    )
    for box in _listed_boxes(known["boxes"] or [{one: row.get(one) for one in BOX}], where):
        label = str(box.get("label") or (written[0] if len(written) == 1 else ""))
        if any(box.get(one) not in ("", None) for one in BOX):
            add_box(image, label, box, options, where)
    return image


def _listed_boxes(value: Any, where: str) -> list[dict[str, Any]]:
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
            raise UserError(f"{where}: {one!r} is not a box: write [x, y, w, h] or an object with x, y, w, h.")
        found.append(one)
    return found


def add_box(image: FolderImage, label: str, values: dict[str, Any], options: FolderOptions, where: str) -> None:
    """Give an image a box, unless its label is mapped to nothing.

    Raises:
        UserError: not four numbers with an area.
    """
    x, y, w, h = (number(str(values.get(name, ""))) for name in BOX)
    if not (w > 0 and h > 0 and x + w > 0 and y + h > 0):
        box = [values.get(name) for name in BOX]
        raise UserError(f"{where}: box {box} of {image.name} is not x, y, w, h with an area inside the image.")
    name = options.label_map.get(label, label)
    if name or not label:
        image.boxes.append((str(values.get("phrase") or ""), Box(name, x, y, w, h)))


def _mask_paths(value: Any, where: str) -> dict[str, str]:
    """name -> path of the column of masks."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{where}: masks are not JSON ({error}).") from None
    elif isinstance(value, str):
        value = dict(part.partition("=")[::2] for part in value.split(";") if part.strip())
    if value and not isinstance(value, dict):
        raise UserError(f"{where}: masks are name=path;name=path or an object name -> path.")
    masks = {str(name).strip(): str(path).strip() for name, path in (value or {}).items()}
    for path in masks.values():
        check_relative(path)
    return masks
