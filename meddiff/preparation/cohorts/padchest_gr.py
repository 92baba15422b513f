"""PadChest-GR: reports cut into sentences, each with the boxes of up to two readers; what a report denies is kept.

A sentence is a phrase, its labels are its classes, mapped to the paper's eight where they are one of them
(:mod:`meddiff.preparation.cohorts.padchest_gr_labels`).
A sentence that denies a finding is a phrase without boxes, and the classes that an image's report denies are its attribute
``denied``: the set of absent findings that a radiologist vouches for (:mod:`meddiff.evaluation.denied`).
Source: de Castro et al. 2025, arXiv 2411.05085 (the data); spec/evaluation_beyond.md section 10 (what is kept); mapping, rules
and the use of two readers own. Written out in docs/cohorts_open.md.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cells import says_nothing
from meddiff.preparation.cohorts.boxes_csv import SAME_PLACE, in_order, overlap
from meddiff.preparation.cohorts.padchest_gr_files import (
    PADCHEST_GR,
    REPORTS,
    TABLE,
    Corners,
    Listed,
    Sentence,
    Study,
    images_folder,
    read_reports,
    read_table,
)
from meddiff.preparation.cohorts.padchest_gr_labels import OTHER, classes_of
from meddiff.preparation.images import probe
from meddiff.preparation.records import Funnel, Reading, Record, Rejected
from meddiff.preparation.rows import Sieve, require
from meddiff.preparation.safe_files import inside
from meddiff.shards.sample import Box, Phrase

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}\.[A-Za-z]{3,4}")
Readers = Literal["both", "first", "agreed"]
#: How far a corner may lie outside the image (parts of it), as a hand slips; it is cut to the image.
SLIP = 0.01


@dataclass(frozen=True)
class PadchestGrOptions:
    """Options of ``lightning prepare padchest-gr``."""

    readers: Readers = "both"
    """Whose boxes a sentence has: those of both readers (boxes and extra_boxes), of the first alone (boxes), or those of either
    that the other drew in the same place (intersection over union of 0.4; one reader alone keeps what he drew)."""
    window: tuple[float, float] = (0.5, 99.5)
    """Percentiles of an image's 16-bit values that become black and white; 0 and 100 are its whole range."""
    reports: str = ""
    """The JSON of grounded reports relative to the root; empty looks for grounded_reports_*.json."""
    images: str = ""
    """The folder of the images relative to the root; empty looks for Padchest_GR_files/PadChest_GR and the like."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", tuple(self.window))  # a list out of YAML is as good as a tuple
        if len(self.window) != 2 or not 0 <= self.window[0] < self.window[1] <= 100:
            raise UserError(
                f"padchest-gr: window is {self.window}; give two percentiles from 0 to 100, the lower first."
            )


@dataclass(frozen=True)
class _Told:
    """A sentence that can be used, with its classes and boxes; ``both`` are the sets of two readers, where there are two.

    Boxes are in parts of the image and have no label.
    """

    text: str
    abnormal: bool
    classes: tuple[str, ...]
    boxes: tuple[Box, ...]
    both: tuple[tuple[Box, ...], tuple[Box, ...]] | None


def read(root: Path, options: PadchestGrOptions | None = None) -> Reading:
    """The cohort below ``root``: train, val (its validation) and grounding (its test), as given.

    Raises:
        UserError: a file is missing or of another form, no images, or boxes that are no parts of the image.
    """
    options, root = options or PadchestGrOptions(), Path(root)
    file = options.reports or require(root, REPORTS, PADCHEST_GR)
    table = require(root, TABLE, PADCHEST_GR)
    studies, listed = read_reports(root, file), read_table(root, table)
    _refuse_pixels(studies, file)
    folder = images_folder(root, options.images, (study.image for study in studies))
    lost: list[Rejected] = []
    told = {study.place: _tell(study, options.readers, lost) for study in studies}
    funnel, sizes = Funnel(), dict[str, tuple[int, int]]()

    def unreadable(study: Study) -> str | None:
        size = probe(inside(root, f"{folder}/{study.image}"))
        if isinstance(size, str):
            return size
        sizes[study.image] = size
        return None

    sieve = Sieve(studies, lambda study: f"{study.image} ({study.place})", funnel)
    sieve.apply("malformed ImageID", lambda study: None if _NAME.fullmatch(study.image) else "no name of an image")
    sieve.unique("repeated image", lambda study: _key(study.image))
    sieve.apply("image without a split", lambda study: None if study.image in listed else f"it is not in {table}")
    sieve.apply("no usable sentence", lambda study: None if told[study.place] else "all are left out")
    sieve.apply("image missing or unreadable", unreadable)
    records = [
        _record(one, listed[one.image], told[one.place], f"{folder}/{one.image}", sizes[one.image])
        for one in sieve.items
    ]
    records.sort(key=lambda record: record.key)
    used = [sentence for study in sieve.items for sentence in told[study.place]]
    facts = {
        "counts": {
            "sentences": len(used),
            "sentences that deny": sum(not one.abnormal for one in used),
            **_agreement(used),
            **Counter(record.split for record in records),
        },
        "rows_removed": dict(sorted(Counter(one.rule for one in lost).items())),
        "files": [file, table],
    }
    options_and_facts = asdict(options) | facts
    return Reading(
        "padchest-gr", root, records, funnel, [*lost, *sieve.rejected], options_and_facts, window=options.window
    )


def _refuse_pixels(studies: Iterable[Study], file: str) -> None:
    drawn = [(one, box) for study in studies for one in study.sentences for box in (*one.first, *one.second)]
    if drawn and all(max(box) > 1 + SLIP for _, box in drawn):
        raise UserError(
            f"{file}: no box lies in its image (such as {drawn[0][0].place}: {list(drawn[0][1])}); boxes must be parts of the "
            "image from 0 to 1: divide x by its width and y by its height."
        )


def _tell(study: Study, readers: Readers, lost: list[Rejected]) -> list[_Told]:
    """The usable sentences of a study; what is not goes to ``lost`` with its reason."""
    found = []
    for one in study.sentences:
        if says_nothing(one.text):
            lost.append(Rejected(one.place, "sentence that says nothing", "sentence_en is blank"))
            continue
        first, second = (
            _usable(one, key, some, lost) for key, some in (("boxes", one.first), ("extra_boxes", one.second))
        )
        classes = classes_of(one.text, one.labels, one.abnormal)
        if not classes:
            lost.append(Rejected(one.place, "sentence without a label (its text stays in the report)", one.text))
        boxes = choose_boxes(first, second, readers)
        found.append(_Told(one.text, one.abnormal, classes, boxes, (first, second) if first and second else None))
    return found


def _usable(one: Sentence, key: str, some: Iterable[Corners], lost: list[Rejected]) -> tuple[Box, ...]:
    found = []
    for number, corners in enumerate(some, 1):
        x1, y1, x2, y2 = (min(max(edge, 0.0), 1.0) for edge in corners)
        rule = ""
        if min(corners) < -SLIP or max(corners) > 1 + SLIP:
            rule = "box that is no part of the image"
        elif x2 <= x1 or y2 <= y1:
            rule = "box without area"
        elif not one.abnormal:
            rule = "box of what is denied"
        if rule:
            lost.append(Rejected(f"{one.place}, {key}, box {number}", rule, f"{list(corners)}"))
        else:
            found.append(Box("", x1, y1, x2 - x1, y2 - y1))
    return tuple(dict.fromkeys(found))


def choose_boxes(first: Sequence[Box], second: Sequence[Box], readers: Readers) -> tuple[Box, ...]:
    """The boxes of a sentence out of those of two readers (see :class:`PadchestGrOptions`)."""
    if readers == "first":
        return tuple(first)
    if not first or not second:
        return tuple(first or second)
    if readers == "both":
        return tuple(dict.fromkeys([*first, *second]))
    pairs = [(a, b) for a in first for b in second if overlap(a, b) >= SAME_PLACE]
    agreed = {box for two in pairs for box in two}
    return tuple(dict.fromkeys(box for box in (*first, *second) if box in agreed))


def readers_agree(first: Sequence[Box], second: Sequence[Box]) -> float:
    """Intersection over union of what two readers cover, exactly: how well one predicts the other.

    Example:
        >>> readers_agree([Box("", 0, 0, 2, 1), Box("", 1, 0, 2, 1)], [Box("", 0, 0, 2, 1)])
        0.6666666666666666
    """
    boxes = [*first, *second]
    xs = np.unique([edge for box in boxes for edge in (box.x, box.x + box.w)])
    ys = np.unique([edge for box in boxes for edge in (box.y, box.y + box.h)])
    x, y = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    a, b = (
        np.any(
            [np.outer(abs(2 * (y - one.y) - one.h) < one.h, abs(2 * (x - one.x) - one.w) < one.w) for one in some], 0
        )
        for some in (first, second)
    )  # (cells along y, cells along x)
    areas = np.outer(np.diff(ys), np.diff(xs))
    return float(areas[a & b].sum() / areas[a | b].sum())


def _agreement(sentences: Iterable[_Told]) -> dict[str, float]:
    shares = [readers_agree(*one.both) for one in sentences if one.both]
    mean = {"agreement of the readers (mean IoU)": round(float(np.mean(shares)), 4)} if shares else {}
    return {"sentences with boxes of two readers": len(shares), **mean}


def _key(image: str) -> str:
    return image.rsplit(".", 1)[0].replace(".", "_")


def _record(study: Study, listed: Listed, told: Sequence[_Told], path: str, size: tuple[int, int]) -> Record:
    """One image with its sentences in the order of the report; boxes in pixels of its file of (width, height) ``size``."""
    width, height = size
    phrases: dict[tuple[str, str], list[Box]] = {}
    for one in told:
        for label in one.classes:
            boxes = phrases.setdefault((one.text, label), [])
            placed = (Box(label, b.x * width, b.y * height, b.w * width, b.h * height) for b in one.boxes)
            boxes += [box for box in placed if box not in boxes]
    present = {label for one in told if one.abnormal for label in one.classes}
    healthy = not any(one.abnormal for one in told)
    denied = {label for one in told if not one.abnormal for label in one.classes} - present - {OTHER}
    texts = dict.fromkeys(one.text if one.text.endswith((".", "!", "?")) else f"{one.text}." for one in told)
    return Record(
        key=_key(study.image),
        path=path,
        split=listed.split,
        patient_id=listed.patient or study.image,
        impression=" ".join(texts),
        labels=(NO_FINDING,) if healthy else (*in_order(present), *sorted(present - set(FINDINGS))),
        phrases=tuple(Phrase(text, label, tuple(boxes)) for (text, label), boxes in phrases.items()),
        boxes=tuple(dict.fromkeys(box for boxes in phrases.values() for box in boxes)),
        attributes={
            "study_id": study.name,
            "native_size": [width, height],
            "sex": listed.sex,
            "denied": [*in_order(denied), *sorted(denied - set(FINDINGS))],
            "locations": sorted({name for one in study.sentences if one.abnormal for name in one.locations}),
        },
    )
