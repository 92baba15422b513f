"""Samples that are kept and yet worth a look: masks that say nothing, boxes that leave their image. Source: own.

What was found on a sample while it was made lies in its attributes (:mod:`meddiff.preparation.record_images`); here it is
gathered over the written shards, whoever wrote them.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meddiff.preparation.record_images import reaches_out
from meddiff.preparation.records import Record, Rejected
from meddiff.shards.manifest import ShardRecord
from meddiff.shards.members import IMAGE_SPLITS

KEPT = "(its image is kept)"
EMPTY, FULL, LOST = f"empty mask {KEPT}", f"mask of the whole image {KEPT}", f"mask outside the crop {KEPT}"
BEYOND = f"box reaching out of the image {KEPT}"
_MASKS = {"masks_empty": EMPTY, "masks_full": FULL, "masks_lost": LOST}
#: Part of a cohort's boxes that reach out of their images from which on they are taken for something else than x, y, w, h.
MANY = 0.25


@dataclass
class Oddities:
    """Lines for ``rejected.csv``; and of how many boxes how many reach out of their images."""

    lines: list[Rejected] = field(default_factory=list)
    beyond: int = 0
    boxes: int = 0


def find_oddities(folder: Path, shards: Iterable[ShardRecord]) -> Oddities:
    """Of written shards, in the order of shards and keys."""
    found = Oddities()
    for shard in shards:
        if shard.split not in IMAGE_SPLITS and not shard.boxes:
            continue
        found.boxes += shard.boxes.get("kept", 0) + shard.boxes.get("lost", 0)
        for source, attributes in _attributes(folder / shard.name):
            files = attributes.get("mask_files") or {}
            for name, rule in _MASKS.items():
                masks = attributes.get(name, ())
                found.lines += [Rejected(f"{files.get(mask, mask)} of {source}", rule, mask) for mask in masks]
            if number := attributes.get("boxes_beyond"):
                found.beyond += number
                found.lines.append(Rejected(source, BEYOND, f"{number} of its boxes"))
    return found


def print_oddities(found: Oddities) -> None:
    """A line a kind, and a hint where boxes look like corners."""
    for rule, number in Counter(one.rule for one in found.lines).items():
        print(f"beware: {rule}: {number}, listed in rejected.csv")
    if found.boxes and found.beyond >= MANY * found.boxes:
        print(
            f"beware: {found.beyond} of {found.boxes} boxes reach out of their images: boxes are x, y, width and height, not "
            "two corners, in pixels of the stored file, not of another size"
        )


def foresee(records: Iterable[tuple[Record, tuple[int, int]]]) -> Oddities:
    """What can be said of records and the (width, height) of their images: how many boxes reach out."""
    flags = [reaches_out(box, size) for record, size in records for box in record.boxes]
    return Oddities([], sum(flags), len(flags))


def _attributes(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(source, attributes) of each sample of a shard."""
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".json") else None
            if stream is not None:
                sample = json.load(stream)
                yield sample["source"], sample["attributes"]
