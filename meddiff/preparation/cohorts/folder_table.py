"""The table of ``lightning prepare folder``: its options, its rows, and boxes and masks as they may be written in it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cells import NotText, free_texts, identifier, is_nothing, listed, one_word, visible
from meddiff.preparation.cohorts.boxes_csv import looks_like_fractions, number, on_image
from meddiff.preparation.records import check_relative
from meddiff.shards.members import MAX_NAME_BYTES, slug
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
        captions: several texts that are equally good; () where there is one or none.
        emptied: options whose cell held a word or number for "nothing here".
        wrong: why the row cannot be used; "" where it can.
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
    captions: tuple[str, ...] = ()
    emptied: list[str] = field(default_factory=list)
    wrong: str = ""

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


def cell(value: object) -> str:
    """What is written in a cell; 0 is a value, null is none."""
    return "" if value is None else str(value).strip()


def image_of(line: int, row: Mapping[str, object], options: FolderOptions, table: str) -> FolderImage:
    """A row of the table, understood; what holds something else than text makes it :attr:`FolderImage.wrong`.

    Raises:
        UserError: boxes or masks that cannot be understood, or a mask's path that leads out of the root.
    """
    where = f"{table}, row {line}"
    named = options.named()
    known = {name: row.get(column) for name, column in named.items()}
    used = {*named.values(), options.image, *BOX}
    others = {name: value for name, value in row.items() if value not in ("", None) and value == value}
    path, name = cell(row.get(options.image)), cell(row.get(options.id or options.image))
    image = FolderImage(line, name, path, path, "", "", [], [], "", {}, {})
    try:
        path, name = (
            one_word(row.get(column), column, numbers=False) for column in (options.image, options.id or options.image)
        )
        # by the file, so that two rows of one file are one patient
        image = replace(image, name=name, path=path, patient=path)
        labels = listed(known["labels"], options.separator, named["labels"], options.label_map)
        if not labels:
            labels = listed(row.get("label"), options.separator, "label", options.label_map)
            used.add("label")
        mapped = [options.label_map.get(one, one) for one in labels]
        texts = free_texts(known["text"], named["text"])
        patient = identifier(known["patient"], named["patient"])
        image = replace(
            image,
            patient=patient or path,
            view=one_word(known["view"], named["view"]),
            split=one_word(known["split"], named["split"]),
            written=labels,
            mapped=[label for label in mapped if label],
            own_text=texts[0] if texts else "",
            captions=tuple(texts) if len(texts) > 1 else (),
            others={name: value for name, value in others.items() if name and name not in used},
            more="" in mapped,
        )
        image.masks = _mask_paths(known["masks"], where, options)
        _too_long(image)
        _own_boxes(image, row, known["boxes"], where, options)
        found = {"text": texts, "labels": labels, "patient": patient, "view": image.view, "split": image.split}
        image.emptied = [name for name, value in found.items() if not value and _written(known[name])]
    except NotText as error:
        image.wrong = str(error)
    return image


def _written(value: object) -> bool:
    """Whether a cell is not blank: it holds a word or number."""
    return isinstance(value, str | int | float) and bool(cell(value))


def _place(row: Mapping[str, object], column: str) -> str:
    """A path or an image's name, letter by letter as it is written; "" where the cell says nothing."""
    value = row.get(column)
    word = one_word(value, column, numbers=False)
    return cell(value[0] if isinstance(value, list) else value) if word else ""


def _own_boxes(
    image: FolderImage, row: Mapping[str, object], cells: object, where: str, options: FolderOptions
) -> None:
    boxes = [] if (isinstance(cells, str) and is_nothing(cells)) or cells is None else _listed_boxes(cells, where)
    if not all(is_nothing(cell(row.get(one)), numbers=True) for one in BOX):
        boxes.append({one: row.get(one) for one in (*BOX, "label", "phrase")})
    for box in boxes:
        if reason := bad_box(box) or in_fractions(box):
            values = [box.get(one) for one in BOX]
            raise UserError(
                f"{where}: box {values} of {image.name} is not x, y, w, h with an area in the image: {reason}."
            )
        if box_label(image, box, options) == NO_FINDING:
            raise UserError(
                f"{where}: a box of {image.name} is labelled {NO_FINDING!r}, which has no place: mend one of them."
            )
        add_box(image, box, options)


def _too_long(image: FolderImage) -> None:
    """Refuse what no tar could hold, now and not after hours.

    Raises:
        NotText: a mask's name that is too long beside its image's.
    """
    for name in image.masks:
        if len(f"{image.key}.mask.{slug(name)}.png") > MAX_NAME_BYTES:
            raise NotText(f"the mask's name {name[:80]!r} is too long to be stored beside the image's")


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


def in_fractions(values: Mapping[str, object]) -> str | None:
    """Why x, y, w, h look like fractions of the image; None if they do not."""
    box = [number(cell(values.get(name))) for name in BOX]
    return "it looks like fractions of the image; boxes are in pixels" if looks_like_fractions(box) else None


def box_label(image: FolderImage, values: Mapping[str, object], options: FolderOptions) -> str | None:
    """A box's label as it is called here: its own, else the image's if it has one only, else ""; None is left out."""
    label = box_words(values, "label", options) or (image.written[0] if len(image.written) == 1 else "")
    return (options.label_map.get(label, label) or None) if label else ""


def add_box(image: FolderImage, values: Mapping[str, object], options: FolderOptions) -> bool:
    """Give an image a box (:func:`bad_box` is None), unless its label is left out; returns whether it was given."""
    label = box_label(image, values, options)
    if label is None:
        image.more = True
        return False
    x, y, w, h = (number(cell(values.get(name))) for name in BOX)
    image.boxes.append((box_words(values, "phrase", options), Box(label, x, y, w, h)))
    return True


def box_words(values: Mapping[str, object], name: str, options: FolderOptions) -> str:
    """A box's label or phrase on one line; "" for a word that stands for nothing.

    Raises:
        NotText: it is no text.
    """
    value = values.get(name)
    if name == "label" and isinstance(value, str) and visible(value) in options.label_map:
        return visible(value)
    return " ".join(one_word(value, f"a box's {name}").split())


def _mask_paths(value: object, where: str, options: FolderOptions) -> dict[str, str]:
    """name as it is called here -> path, of the column of masks."""
    if isinstance(value, str) and is_nothing(value):
        value = None
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
