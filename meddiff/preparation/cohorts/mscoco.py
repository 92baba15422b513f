"""MS-COCO 2017: captions for training, class masks for grounding.

An image is used when one of its captions names one of the 80 classes. train2017 becomes train and val, val2017 becomes
grounding; its images serve fidelity too (``lightning evaluate --fidelity.split grounding``), because a sample lives in
one split.
Source: Dombrowski et al. 2024, MS-COCO experiment; spec/tradeoff.md section 1.7; the ``standard`` words, the addressed
draw and all checks own. Files, rules and licences: docs/cohorts_open.md.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from meddiff.common.coco_classes import COCO_CLASSES, Preset, classes_in
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.preparation.cells import says_nothing
from meddiff.preparation.coco_masks import (
    CocoAnnotation,
    CocoImage,
    CocoMasks,
    class_names,
    read_json,
    segmentation_mask,
)
from meddiff.preparation.cohorts.boxes_csv import image_folder, on_image
from meddiff.preparation.records import Funnel, Reading, Record, Rejected
from meddiff.preparation.rows import Sieve, require
from meddiff.shards.sample import Box, Phrase

COCO = "MS-COCO (cocodataset.org, 2017: annotations_trainval2017.zip, train2017.zip, val2017.zip)"
#: Images of the paper in train and val.
PAPER_TRAIN, PAPER_VAL = 98_169, 10_702


@dataclass(frozen=True)
class MscocoOptions:
    """Options of ``lightning prepare mscoco``."""

    subsets: tuple[str, ...] = ("train2017", "val2017")
    """Official subsets to read: train2017 becomes train and val, val2017 becomes grounding."""
    preset: Preset = "standard"
    """How a caption names a class: "standard" (whole words, plurals) or "paper" (substrings, so "carrot" names a car)."""
    val: Literal["addressed", "published"] = "addressed"
    """How train2017 is split: by a draw for each image, or as published, by one stream over the rows that are left."""
    val_fraction: float = 0.1
    """Part of train2017 that becomes val; used with val=addressed (published is 0.1)."""
    crowd: bool = True
    """Count crowd regions (many instances outlined as one) as instances of their class."""
    seed: int = 0
    """Of the draws; used with val=addressed (published is 42)."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"mscoco: val_fraction must lie within 0 and 1, not {self.val_fraction}.")
        if not self.subsets or set(self.subsets) - {"train2017", "val2017"}:
            raise UserError(f"mscoco: subsets are train2017 and val2017, not {', '.join(self.subsets) or 'none'}.")


@dataclass(frozen=True)
class _Instance:
    """An object that is used, and the number of its annotation."""

    number: int
    box: Box


@dataclass
class _Image:
    """An image of a captions file, with what the annotations say about it."""

    subset: str
    values: CocoImage
    captions: list[str] = field(default_factory=list)
    instances: list[_Instance] = field(default_factory=list)
    split: str = ""

    @property
    def name(self) -> str:
        return f"{self.subset}/{self.values.get('file_name')}"


def read(root: Path, options: MscocoOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: an official file is missing or damaged.
    """
    options, root = options or MscocoOptions(), Path(root)
    images: list[_Image] = []
    rejected: list[Rejected] = []
    files: dict[str, tuple[str, str]] = {}
    for subset in dict.fromkeys(options.subsets):
        found, lost, files[subset] = _read_subset(root, subset, options)
        images += found
        rejected += lost
    removed = Counter(one.rule for one in rejected)
    funnel = Funnel()
    sieve = Sieve(images, lambda image: image.name, funnel)
    sieve.apply("malformed image entry", _malformed)
    sieve.unique("repeated image", lambda image: image.values["id"])
    sieve.apply("no caption", lambda image: None if image.captions else "no caption with text")
    sieve.apply(
        "no caption names a class",
        lambda image: None if any(classes_in(one, options.preset) for one in image.captions) else image.captions[0],
    )
    _split(sieve.items, options)
    folders = {subset: image_folder(root, subset, COCO) for subset in files}
    records = [_record(image, folders[image.subset], options.preset) for image in sieve.items]
    facts = {
        "counts": dict(Counter(record.split for record in records)),
        "annotations_removed": dict(sorted(removed.items())),
        "paper": {"train": PAPER_TRAIN, "val": PAPER_VAL},
        "files": [file for pair in files.values() for file in pair],
    }
    masks = CocoMasks(root, files["val2017"][1]) if "val2017" in files else None
    records.sort(key=lambda record: record.key)
    return Reading("mscoco", root, records, funnel, [*rejected, *sieve.rejected], asdict(options) | facts, masks)


def published_val(n: int) -> list[bool]:
    """Which of ``n`` rows the published split moves to val: the paper's 10,702 of 108,871.

    The seed is set once and the numbers follow the order of the rows; this is numpy's legacy stream, of its own object.
    """
    return [bool(one > 0.9) for one in np.random.RandomState(42).rand(n)]


def _split(images: list[_Image], options: MscocoOptions) -> None:
    """Name the split of every image; rows of the published rule are the images left, in the order of the file."""
    train = [image for image in images if image.subset == "train2017"]
    if options.val == "published":
        chosen = published_val(len(train))
    else:
        draws = (generator(options.seed, "mscoco", "val", image.values["id"]).random() for image in train)
        chosen = [draw < options.val_fraction for draw in draws]
    for image in images:
        image.split = "grounding"
    for image, val in zip(train, chosen, strict=True):
        image.split = "val" if val else "train"


def _read_subset(
    root: Path, subset: str, options: MscocoOptions
) -> tuple[list[_Image], list[Rejected], tuple[str, str]]:
    """Images in the order of the captions file, annotations that are not used, and the two files."""
    captions, instances = (
        require(root, [f"annotations/{kind}_{subset}.json", f"{kind}_{subset}.json"], COCO)
        for kind in ("captions", "instances")
    )
    listed = read_json(root, captions, ("images", "annotations"))
    # masks are only stored for grounding, and the outlines of train2017 are most of the file
    unused = "" if subset == "val2017" else "segmentation"
    shown = read_json(root, instances, ("annotations", "categories"), unused)
    names = class_names(instances, shown)
    images = [_Image(subset, one if isinstance(one, dict) else CocoImage()) for one in listed["images"]]
    by_id: dict[int, _Image] = {}
    for image in images:
        if _malformed(image) is None:
            by_id.setdefault(image.values["id"], image)
    texts = _sieve(listed["annotations"], f"{subset} caption", by_id)
    texts.apply("caption without text", lambda one: None if _text(one) else "empty")
    for one in texts.items:
        by_id[one["image_id"]].captions.append(_text(one))
    objects = _sieve(shown["annotations"], f"{subset} instance", by_id)
    objects.apply("instance of an unknown class", lambda one: _unknown_class(one, names))
    if not options.crowd:
        objects.apply("crowd region", lambda one: "left out by the option" if one.get("iscrowd") else None)
    objects.apply("box without area or outside the image", lambda one: _bad_box(one, by_id[one["image_id"]]))
    if not unused:
        objects.apply("damaged segmentation", lambda one: _bad_segmentation(one, by_id[one["image_id"]]))
    for one in objects.items:
        box = Box(names[one["category_id"]], *map(float, one["bbox"]))
        by_id[one["image_id"]].instances.append(_Instance(one["id"], box))
    return images, [*texts.rejected, *objects.rejected], (captions, instances)


def _sieve(annotations: Iterable[CocoAnnotation], kind: str, images: Mapping[int, _Image]) -> Sieve[CocoAnnotation]:
    """Annotations with an id of their own, of images that are listed."""
    entries = [one if isinstance(one, dict) else CocoAnnotation() for one in annotations]
    sieve = Sieve(entries, lambda one: f"{kind} {one.get('id')}", Funnel())
    sieve.apply("malformed annotation", lambda one: None if _whole(one.get("id")) else "no id")
    sieve.unique("repeated annotation", lambda one: one["id"])
    sieve.apply("annotation of an image that is not listed", lambda one: _unlisted(one, images))
    return sieve


def _whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 10**12


def _malformed(image: _Image) -> str | None:
    values = image.values
    if not (_whole(values.get("id")) and _whole(values.get("width"), 1) and _whole(values.get("height"), 1)):
        return "id, width and height must be whole numbers"
    # the name becomes part of a path, so it may be nothing but a name
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}\.(jpg|jpeg|png)", str(values.get("file_name"))):
        return f"file_name {values.get('file_name')!r} is not the plain name of an image"
    return None


def _unlisted(one: CocoAnnotation, images: Mapping[int, _Image]) -> str | None:
    known = _whole(one.get("image_id")) and one["image_id"] in images
    return None if known else f"image_id {one.get('image_id')!r}"


def _unknown_class(one: CocoAnnotation, names: dict[int, str]) -> str | None:
    number = one.get("category_id")
    known = isinstance(number, int) and names.get(number) in COCO_CLASSES
    return None if known else f"category_id {number!r}"


def _bad_box(one: CocoAnnotation, image: _Image) -> str | None:
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        return f"bbox {box!r}"
    fits = all(abs(value) < 1e9 for value in box) and on_image(box, (image.values["width"], image.values["height"]))
    return None if fits else f"bbox {box!r}"


def _bad_segmentation(one: CocoAnnotation, image: _Image) -> str | None:
    try:
        segmentation_mask(one.get("segmentation"), image.values["height"], image.values["width"])
    except UserError as error:
        return str(error)
    return None


def _text(one: CocoAnnotation) -> str:
    text = one.get("caption")
    # half of a surrogate pair is no text and could not be stored
    if not isinstance(text, str) or any("\ud800" <= character <= "\udfff" for character in text) or says_nothing(text):
        return ""
    return " ".join(text.split())


def _record(image: _Image, folder: str, preset: Preset) -> Record:
    boxes = tuple(one.box for one in image.instances)
    labels = {box.label for box in boxes}
    grounded = image.split == "grounding"
    attributes: dict[str, object] = {"native_size": [image.values["width"], image.values["height"]]}
    if grounded:
        attributes["annotation_ids"] = [one.number for one in image.instances]
    key = f"{image.values['id']:012d}"
    return Record(
        key=key,
        path=f"{folder}/{image.values['file_name']}",
        split=image.split,
        patient_id=key,
        impression=image.captions[0],
        labels=tuple(label for label in COCO_CLASSES if label in labels),
        captions=tuple(image.captions),
        phrases=tuple(_phrases(image.captions, boxes, preset)) if grounded else (),
        boxes=boxes,
        attributes=attributes,
    )


def _phrases(captions: list[str], boxes: tuple[Box, ...], preset: Preset) -> Iterator[Phrase]:
    """One for each caption and each class that it names and the image shows."""
    for caption in dict.fromkeys(captions):
        for label in classes_in(caption, preset):
            if shown := tuple(box for box in boxes if box.label == label):
                yield Phrase(caption, label, shown)
