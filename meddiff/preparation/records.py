"""What readers of real cohorts hand over: images still to be read, what was left out, and how many each rule removed.

Source: own. A reader is ``read(root, options) -> Reading`` in ``preparation/cohorts``; it opens text files, and of images at
most the first bytes (where boxes are parts of an image, only those tell its size).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.common.outside import check_relative
from meddiff.shards.sample import Box, Phrase

SPLITS = ("train", "val", "grounding", "fidelity", "test")
#: Longest key: what a tar header's 100 bytes leave beside the names of members.
MAX_KEY = 80


@dataclass(frozen=True)
class Record:
    """One image before it is read.

    Attributes:
        key: unique, letters, digits, ``_`` and ``-`` only; sorting by key fixes the order of shards.
        path: posix path relative to the root.
        split: one of :data:`SPLITS`.
        phrases, boxes: in native pixels of the stored file, as it lies there (no EXIF rotation).
        attributes: JSON values, stored with the sample.

    Raises:
        UserError: a key, path or split that cannot be used.
    """

    key: str
    path: str
    split: str
    patient_id: str
    impression: str
    labels: tuple[str, ...]
    view: str = ""
    captions: tuple[str, ...] = ()
    phrases: tuple[Phrase, ...] = ()
    boxes: tuple[Box, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"(?!__)[A-Za-z0-9_-]{{1,{MAX_KEY}}}", self.key):
            raise UserError(
                f"image {self.key!r} ({self.path}) cannot be stored: its name must have 1 to {MAX_KEY} letters, digits, "
                "underscores and hyphens, and not begin with two underscores."
            )
        check_relative(self.path)
        texts = (
            self.patient_id,
            self.impression,
            self.view,
            *self.labels,
            *self.captions,
            *(one.text for one in self.phrases),
        )
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"image {self.key} has text that is none ({error}): mend its characters.") from None
        if self.split not in SPLITS:
            raise UserError(f"image {self.key} is of split {self.split!r}: there are {', '.join(SPLITS)}.")


@dataclass(frozen=True)
class Rejected:
    """One line of ``rejected.csv``: what was left out, by which rule, and why."""

    item: str
    rule: str
    detail: str = ""


class Funnel:
    """Rules in their order, each with how many are left after it and how many it removed."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, int]] = []

    def start(self, n: int) -> None:
        """``n`` items were read."""
        self._steps = [("read", n)]

    def keep(self, rule: str, n_left: int) -> None:
        """``rule`` left ``n_left`` items."""
        if not self._steps:
            raise ValueError("a funnel starts with start(n)")
        self._steps.append((rule, n_left))

    def rows(self) -> list[tuple[str, int, int]]:
        """(rule, left, removed) in order; the first is ("read", n, 0)."""
        before = [self._steps[0][1], *(left for _, left in self._steps)] if self._steps else []
        return [(rule, left, was - left) for (rule, left), was in zip(self._steps, before, strict=False)]


@dataclass
class Reading:
    """What a reader returns.

    Attributes:
        records: sorted by key.
        funnel: whose last step leaves as many as there are records.
        options: JSON values for the manifest: the reader's options and what it counted.
        pictures: record -> uint8 (H, W) or (H, W, 3), where images are no files of their own; must pickle. ``path`` of a record
            is then where they lie together.
        window: percentiles of an image's values (0 to 100) that become black and white, where it has more than 8 bits; None
            takes its whole range.
        native_masks: (record, (H, W) of the stored file) -> name -> bool (H, W); must pickle.
    """

    cohort: str
    root: Path
    records: list[Record]
    funnel: Funnel
    rejected: list[Rejected]
    options: dict[str, Any]
    native_masks: Callable[[Record, tuple[int, int]], dict[str, NDArray[np.bool_]]] | None = None
    pictures: Callable[[Record], NDArray[np.uint8]] | None = None
    window: tuple[float, float] | None = None
