"""Any folder of images with a table of texts, labels, boxes and masks: histology, fundus, photographs, own X-rays.

The table is a CSV with a header (also ``.csv.gz``) or a JSONL, a row an image. Columns are named by options; only the
image's path is needed. Values:

- ``image``: path relative to the root. ``id``: name of the image, also in the table of boxes; by default the path.
- ``text``: what the image is paired with, a list in JSONL: several captions; where it is empty, the labels joined by blanks.
- ``labels``: joined by the separator, or a list in JSONL; where there are none, the column ``label``.
- ``split``: train, val, grounding, fidelity or test. Without it patients are drawn (:class:`FolderOptions`).
- ``patient``: whatever must not be in two splits (patient, slide, group); by default each image is its own.
- ``boxes``: JSON list of ``[x, y, w, h]`` or ``{"x", "y", "w", "h", "label", "phrase"}``; or columns x, y, w, h (label,
  phrase) for one box.
- ``masks``: JSON object (in a CSV also ``name=path;name=path``) of mask images as large as the image
  (:mod:`meddiff.preparation.mask_files` says what is inside).

More boxes may lie in a CSV of their own, a row a box: the image's id, x, y, w, h, and if they are there label and phrase.
All boxes are in pixels of the stored file, x and y the upper left corner. A box without a label has the image's, if that
has one only. Boxes of one phrase (else of one label) of an image become one phrase. A box that is none is a mistake in
the image's own row and ends the reading; in the table of boxes its row is rejected. Source: own. Written out in
docs/cohorts_nih.md.
"""

import csv
import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import IO, TypeAlias
from zipfile import BadZipFile

from meddiff.common.bounded import parse_json
from meddiff.common.csv_rows import csv_rows
from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cells import NotText
from meddiff.preparation.cohorts.boxes_csv import draw_split
from meddiff.preparation.cohorts.folder_table import (
    BOX,
    FolderImage,
    FolderOptions,
    add_box,
    bad_box,
    box_label,
    box_words,
    cell,
    image_of,
    in_fractions,
)
from meddiff.preparation.mask_files import MaskFiles
from meddiff.preparation.records import SPLITS, Funnel, Reading, Record, Rejected, check_relative
from meddiff.preparation.rows import Sieve
from meddiff.preparation.safe_files import open_text
from meddiff.shards.sample import Box, Phrase

TABLES = tuple(f"{name}.{kind}" for kind in ("csv", "jsonl", "csv.gz", "jsonl.gz") for name in ("meta", "metadata"))
FRACTIONS = "box in fractions of the image, not in pixels"
JSONL = (".jsonl", ".jsonl.gz")
#: (line, column -> value): text of a CSV, any JSON of a JSONL.
Rows: TypeAlias = list[tuple[int, dict[str, object]]]


def read(root: Path, options: FolderOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: no table, no such column, a path that leads out of the root, two ids with one key.
    """
    options, root = options or FolderOptions(), Path(root)
    table = options.table or _only_table(root)
    usual = FolderOptions().named()
    asked = {column: f"--{name}" for name, column in options.named().items() if column != usual[name]}
    asked |= {options.image: "--image"} | ({options.id: "--id"} if options.id else {})
    images = [image_of(line, row, options, table) for line, row in _rows(root, table, asked)]
    funnel = Funnel()
    sieve = Sieve(images, lambda image: f"{image.name or '(no name)'} ({table}, row {image.line})", funnel)
    sieve.seldom("a cell that cannot be used", lambda image: image.wrong or None)
    sieve.apply("no image path", lambda image: None if image.path and image.name else "empty cell")
    for image in sieve.items:
        check_relative(image.path)
    sieve.unique("repeated image", lambda image: image.name)
    _one_key_each(sieve.items, table)
    boxes_table, lost = _enter_boxes(root, sieve.items, options)
    sieve.apply("no text and no label", lambda image: None if image.text else ", ".join(image.written) or "empty")
    _split(sieve, options)
    records = sorted((_record(image) for image in sieve.items), key=lambda record: record.key)
    emptied = dict(sorted(Counter(name for image in images for name in image.emptied).items()))
    facts = {
        "counts": {
            "boxes": sum(len(record.boxes) for record in records),
            "boxes by label": dict(sorted(Counter(box.label for record in records for box in record.boxes).items())),
            **Counter(record.split for record in records),
        },
        **({"read_as_empty": emptied} if emptied else {}),
        "boxes_removed": dict(sorted(Counter(one.rule for one in lost).items())),
        "files": [table, *([boxes_table] if boxes_table else [])],
    }
    reader = MaskFiles(root) if any(image.masks for image in sieve.items) else None
    return Reading("folder", root, records, funnel, [*lost, *sieve.rejected], asdict(options) | facts, reader)


def _only_table(root: Path) -> str:
    found = [name for name in TABLES if (root / name).is_file()]
    if len(found) != 1:
        what = f"several tables ({', '.join(found)})" if found else f"no table ({', '.join(TABLES)})"
        raise UserError(f"{root} holds {what}: name it with --table.")
    return found[0]


def _rows(root: Path, table: str, columns: dict[str, str]) -> Rows:
    """(line, row) of a CSV or JSONL; ``columns`` must be there (column -> option that names it), in JSONL in some line.

    Raises:
        UserError: a column is missing or twice, a row does not fit the header, or the file is damaged.
    """
    try:
        with open_text(root, table) as stream:
            header, rows = _read_json(stream, table) if table.endswith(JSONL) else _read_csv(stream, table)
    except (EOFError, OSError, csv.Error, UnicodeDecodeError, zlib.error, BadZipFile) as error:
        raise UserError(f"{table} cannot be read to its end ({error}): it must be whole, and text in UTF-8.") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{table} has no column {missing[0]!r} (it has: {', '.join(header) or 'nothing'}): name the right one with "
            f"{columns[missing[0]]}."
        )
    return rows


def _read_csv(stream: IO[str], table: str) -> tuple[list[str], Rows]:
    # strict: a quote that is never closed would swallow all rows after it
    reader = csv_rows(stream, strict=True)
    header = [name.strip() for name in next(reader, [])]
    twice = [name for name, times in Counter(filter(None, header)).items() if times > 1]
    if twice:
        raise UserError(f"{table} has the column {twice[0]!r} twice: rename one.")
    rows: Rows = []
    line = reader.line_num + 1
    for cells in reader:
        if any(one.strip() for one in cells[len(header) :]):
            raise UserError(f"{table}, row {line} has more cells than the header: put text with commas into quotes.")
        if cells:
            rows.append((line, dict(zip_longest(header, (one.strip() for one in cells[: len(header)]), fillvalue=""))))
        line = reader.line_num + 1
    return header, rows


def _read_json(stream: IO[str], table: str) -> tuple[list[str], Rows]:
    header: dict[str, None] = {}
    rows: Rows = []
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
            json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:  # also half of a surrogate pair, which is no text
            raise UserError(f"{table}, row {line} is not JSON ({error}): mend it.") from None
        if not isinstance(row, dict):
            raise UserError(f"{table}, row {line} is no object: every line is one, with the image's path.")
        header |= dict.fromkeys(row)
        rows.append((line, row))
    return list(header), rows


def _enter_boxes(root: Path, images: Iterable[FolderImage], options: FolderOptions) -> tuple[str, list[Rejected]]:
    """Boxes of the table of boxes; returns its name and the rows that are not used."""
    table = options.boxes_table or ("boxes.csv" if (root / "boxes.csv").is_file() else "")
    if not table:
        return "", []
    images_by_name = {image.name: image for image in images}
    asked = {options.boxes_image: "--boxes_image"} | dict.fromkeys(BOX, "x, y, w, h in its header")
    rows = [(line, cell(row.get(options.boxes_image)), row) for line, row in _rows(root, table, asked)]
    sieve = Sieve(rows, lambda one: f"{one[1] or '(no name)'} ({table}, row {one[0]})", Funnel())
    sieve.apply("box of an image that is not listed", lambda one: None if one[1] in images_by_name else "not listed")
    sieve.apply("box without area, outside the image or not four numbers", lambda one: bad_box(one[2]))
    sieve.seldom(FRACTIONS, lambda one: in_fractions(one[2]))
    if sieve.rejected and not sieve.items and all(one.rule == FRACTIONS for one in sieve.rejected):
        raise UserError(
            f"{table}: all {len(rows)} boxes look like fractions of the image ({sieve.rejected[0].item}); boxes must be in "
            "pixels: multiply x and w by the image's width, y and h by its height."
        )
    sieve.seldom("a box's label or phrase is no text", lambda one: _no_text(one[2], options))
    sieve.unique("repeated box", lambda one: json.dumps(one[2], sort_keys=True))

    def contradicts(one: tuple[int, str, dict[str, object]]) -> str | None:
        label = box_label(images_by_name[one[1]], one[2], options)
        return NO_FINDING if label == NO_FINDING else None

    sieve.apply(f"box of {NO_FINDING}", contradicts)

    def left_out(one: tuple[int, str, dict[str, object]]) -> str | None:
        image, values = images_by_name[one[1]], one[2]
        return None if add_box(image, values, options) else box_words(values, "label", options) or image.written[0]

    sieve.apply("box of a label that is left out", left_out)
    return table, sieve.rejected


def _no_text(values: dict[str, object], options: FolderOptions) -> str | None:
    try:
        box_words(values, "label", options), box_words(values, "phrase", options)
    except NotText as error:
        return str(error)
    return None


def _one_key_each(images: Iterable[FolderImage], table: str) -> None:
    seen: dict[str, FolderImage] = {}
    for image in images:
        other = seen.setdefault(image.key, image)
        if other is not image:
            raise UserError(
                f"{table}: images {other.name!r} and {image.name!r} would both be stored as {image.key!r}: give them ids that "
                "differ in letters, digits, underscores or hyphens (--id COLUMN)."
            )


def _split(sieve: Sieve[FolderImage], options: FolderOptions) -> None:
    given = any(image.split for image in sieve.items)
    if given:
        sieve.apply(
            "split is not one of " + ", ".join(SPLITS),
            lambda image: None if image.split in SPLITS else f"{image.split!r}",
        )
    placed = {image.patient for image in sieve.items if image.boxes or image.masks}
    for image in sieve.items:
        if not given:
            address = (options.seed, "folder", "split", image.patient)
            image.split = draw_split(
                address, options.val, options.fidelity, options.grounding, boxed=image.patient in placed
            )
    if not given:
        sieve.apply(
            "image without box or mask of a grounding patient",
            lambda image: None if image.split != "grounding" or image.boxes or image.masks else image.patient,
        )


def _record(image: FolderImage) -> Record:
    boxes = tuple(box for _, box in image.boxes)
    groups: dict[tuple[str, str], list[Box]] = {}
    for phrase, box in image.boxes:
        if phrase or box.label:
            groups.setdefault((phrase or box.label, box.label), []).append(box)
    attributes: dict[str, object] = {"table": image.others} if image.others else {}
    attributes |= {"mask_files": image.masks} if image.masks else {}
    attributes |= {"labels_written": image.written} if list(image.labels) != image.written else {}
    return Record(
        key=image.key,
        path=image.path,
        split=image.split,
        patient_id=image.patient,
        impression=image.text,
        labels=image.labels,
        view=image.view,
        captions=image.captions,
        phrases=tuple(Phrase(text, label, tuple(some)) for (text, label), some in groups.items()),
        boxes=boxes,
        attributes=attributes,
    )
