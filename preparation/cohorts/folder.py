"""Any folder of images with a table of texts, labels, boxes and masks: histology, fundus, photographs, own X-rays.

The table is a CSV with a header (also ``.csv.gz``) or a JSONL, a row an image. Columns are named by options; only the
image's path is needed. Values:

- ``image``: path relative to the root. ``id``: name of the image, also in the table of boxes; by default the path.
- ``text``: what the image is paired with; where it is empty or there is no such column, the labels joined by blanks.
- ``labels``: joined by the separator, or a list in JSONL.
- ``split``: train, val, grounding, fidelity or test. Without it patients are drawn (:class:`FolderOptions`).
- ``patient``: whatever must not be in two splits (patient, slide, group); by default each image is its own.
- ``boxes``: JSON list of ``[x, y, w, h]`` or ``{"x", "y", "w", "h", "label", "phrase"}``; or columns x, y, w, h for one box.
- ``masks``: JSON object (in a CSV also ``name=path;name=path``) of mask images as large as the image, not 0 = inside.

More boxes may lie in a CSV of their own, a row a box: the image's id, x, y, w, h, and if they are there label and phrase.
All boxes are in pixels of the stored file, x and y the upper left corner. Boxes of one phrase (else of one label) of an
image become one phrase. Source: own. Written out in docs/cohorts_nih.md.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.errors import UserError
from preparation.cohorts.boxes_csv import draw_split, number
from preparation.cohorts.folder_table import BOX, FolderImage, FolderOptions, MaskFiles, add_box, image_of, table_rows
from preparation.cohorts.mimic_files import Sieve, read_rows
from preparation.records import SPLITS, Funnel, Reading, Record, Rejected, check_relative
from preparation.sample import Box, Phrase

TABLES = ("meta.csv", "metadata.csv", "meta.jsonl", "metadata.jsonl")


def read(root: Path, options: FolderOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: no table, no such column, a path that leads out of the root, two ids with one key.
    """
    options, root = options or FolderOptions(), Path(root)
    table = options.table or next((name for name in TABLES if (root / name).is_file()), "")
    if not table:
        raise UserError(f"{root} holds no table ({', '.join(TABLES)}): name it with --table.")
    images = [image_of(line, row, options, table) for line, row in table_rows(root, table, options)]
    funnel = Funnel()
    sieve = Sieve(images, lambda image: f"{image.name or '(no name)'} ({table}, row {image.line})", funnel)
    sieve.apply("no image path", lambda image: None if image.path and image.name else "empty cell")
    for image in sieve.items:
        check_relative(image.path)
    sieve.unique("repeated image", lambda image: image.name)
    _one_key_each(sieve.items, table)
    boxes_table, lost = _enter_boxes(root, sieve.items, options)
    sieve.apply("no text and no label", lambda image: None if image.text else ", ".join(image.written) or "empty")
    _split(sieve, options)
    records = sorted((_record(image) for image in sieve.items), key=lambda record: record.key)
    facts = {
        "counts": {
            "boxes": sum(len(record.boxes) for record in records),
            "boxes by label": dict(sorted(Counter(box.label for record in records for box in record.boxes).items())),
            **Counter(record.split for record in records),
        },
        "boxes_removed": dict(sorted(Counter(one.rule for one in lost).items())),
        "files": [table, *([boxes_table] if boxes_table else [])],
    }
    reader = MaskFiles(root) if any(image.masks for image in sieve.items) else None
    return Reading("folder", root, records, funnel, [*lost, *sieve.rejected], asdict(options) | facts, reader)


def _enter_boxes(root: Path, images: Iterable[FolderImage], options: FolderOptions) -> tuple[str, list[Rejected]]:
    """Boxes of the table of boxes; returns its name and the rows that are not used."""
    table = options.boxes_table or ("boxes.csv" if (root / "boxes.csv").is_file() else "")
    if not table:
        return "", []
    by_name = {image.name: image for image in images}
    rows = [
        {**row, "line": str(line)} for line, row in enumerate(read_rows(root, table, (options.boxes_image, *BOX)), 2)
    ]
    sieve = Sieve(rows, lambda row: f"{row[options.boxes_image]} ({table}, row {row['line']})", Funnel())
    sieve.apply(
        "box of an image that is not listed", lambda row: None if row[options.boxes_image] in by_name else "not listed"
    )
    sieve.apply(
        "box is not four numbers",
        lambda row: None if all(number(row[one]) == number(row[one]) for one in BOX) else "no number",
    )
    sieve.apply("box without area", lambda row: None if number(row["w"]) > 0 and number(row["h"]) > 0 else "no area")
    sieve.apply(
        "box of a label that is left out",
        lambda row: None if options.label_map.get(row.get("label", ""), "-") else row["label"],
    )
    sieve.unique("repeated box", lambda row: tuple(value for name, value in row.items() if name != "line"))
    for row in sieve.items:
        add_box(by_name[row[options.boxes_image]], row.get("label", ""), row, options, f"{table}, row {row['line']}")
    return table, sieve.rejected


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
    boxed = {image.patient for image in sieve.items if image.boxes}
    for image in sieve.items:
        if not given:
            address = (options.seed, "folder", "split", image.patient)
            held = image.patient in boxed
            image.split = draw_split(address, options.val, options.fidelity, options.grounding, held)
    if not given:
        sieve.apply(
            "image without a box of a grounding patient",
            lambda image: None if image.split != "grounding" or image.boxes else image.patient,
        )


def _record(image: FolderImage) -> Record:
    boxes = tuple(box for _, box in image.boxes)
    groups: dict[tuple[str, str], list[Box]] = {}
    for phrase, box in image.boxes:
        if phrase or box.label:
            groups.setdefault((phrase or box.label, box.label), []).append(box)
    attributes: dict[str, Any] = {"table": image.others} if image.others else {}
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
        phrases=tuple(Phrase(text, label, tuple(some)) for (text, label), some in groups.items()),
        boxes=boxes,
        attributes=attributes,
    )
