"""Instance masks of MS-COCO: polygons and run lengths as boolean images, in numpy alone.

A segmentation is a list of polygons ``[x0, y0, x1, y1, ...]`` or ``{"size": [height, width], "counts": ...}`` with run
lengths down the columns, as a list of numbers or as their compressed text.
Source: the data format of MS-COCO (cocodataset.org); the implementation is own. A pixel belongs to a polygon when its
centre lies inside by the even-odd rule; the official code rounds corners to a fifth of a pixel before, so that single
pixels of an outline can differ.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.preparation.records import Record
from meddiff.preparation.safe_files import open_text

Mask: TypeAlias = NDArray[np.bool_]


class CocoImage(TypedDict, total=False):
    """An image of a captions file, as official files have it; readers check each value before they use it."""

    id: int
    width: int
    height: int
    file_name: str


class CocoAnnotation(TypedDict, total=False):
    """A caption or an instance, likewise; ``segmentation`` has the forms of :func:`segmentation_mask`."""

    id: int
    image_id: int
    category_id: int
    caption: str
    bbox: list[float]
    segmentation: object
    iscrowd: int


class CocoCategory(TypedDict):
    """A class of instances."""

    id: int
    name: str


class CocoFile(TypedDict, total=False):
    """The lists of an annotation file; which are there is what :func:`read_json` was asked for."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


@dataclass(frozen=True)
class CocoMasks:
    """The masks of a record's classes, read when they are asked for; small enough to send to any process.

    Args:
        root: of the cohort.
        file: instances_*.json relative to the root; each process reads it once.
    """

    root: Path
    file: str

    def __call__(self, record: Record, size: tuple[int, int]) -> dict[str, Mask]:
        """Class -> union of its instances, (H, W); {} for a record whose masks are not kept.

        Args:
            record: with ``annotation_ids`` and ``native_size`` (width, height) among its attributes.
            size: (H, W) of the stored image.

        Raises:
            UserError: the image has not the size its masks were drawn for.
        """
        identifiers = record.attributes.get("annotation_ids")
        if not identifiers:
            return {}
        width, height = record.attributes["native_size"]
        if tuple(size) != (height, width):
            raise UserError(
                f"{record.path} has {size[1]} x {size[0]} pixels, {self.file} says {width} x {height}: take the official image."
            )
        parts: dict[str, list[Mask]] = {}
        for label, segmentation in (_segmentations(self.root, self.file)[one] for one in identifiers):
            parts.setdefault(label, []).append(segmentation_mask(segmentation, height, width))
        return {label: union(masks, height, width) for label, masks in parts.items()}


def read_json(root: Path, file: str, lists: Sequence[str], without: str = "") -> CocoFile:
    """An annotation file of MS-COCO.

    Args:
        lists: fields it must have, each a list.
        without: a field that is dropped while reading (the polygons of train2017 fill gigabytes).

    Raises:
        UserError: no JSON, or not of this format.
    """

    def forget(one: dict[str, object]) -> dict[str, object]:
        one.pop(without, None)
        return one

    try:
        with open_text(root, file) as stream:
            value = json.load(stream, object_hook=forget if without else None)
    except (ValueError, OSError, EOFError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}): download it again.") from error
    for field in lists:
        if not isinstance(value, dict) or not isinstance(value.get(field), list):
            raise UserError(f"{file} has no list {field!r}: it is not the official file.")
    return cast(CocoFile, value)


def class_names(file: str, value: CocoFile) -> dict[int, str]:
    """Category id -> name; ids have gaps in MS-COCO.

    Raises:
        UserError: a category without id or name.
    """
    try:
        return {int(one["id"]): str(one["name"]) for one in value["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} has a category without id or name: it is not the official file.") from error


@lru_cache(maxsize=2)
def _segmentations(root: Path, file: str) -> dict[int, tuple[str, object]]:
    """Annotation id -> class and segmentation; of two with the same id the first, as the reader has it."""
    value = read_json(root, file, ("annotations", "categories"))
    names = class_names(file, value)
    return {
        one["id"]: (names[one["category_id"]], one.get("segmentation"))
        for one in reversed(value["annotations"])
        if isinstance(one, dict)
        and all(isinstance(one.get(name), int) for name in ("id", "category_id"))
        and one["category_id"] in names
    }


def decode_counts(text: str) -> list[int]:
    """The run lengths in a compressed text.

    Each character holds five bits of a number, lowest first; its sixth bit says that more follow; the fifth bit of the
    last is the sign. From the fourth run on, what is stored is the difference to the run two places before.

    Raises:
        UserError: a character that cannot occur, or the text ends within a number.

    Example:
        >>> decode_counts("52203")
        [5, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise UserError(f"The run lengths hold {character!r}, which is no part of the compressed form.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise UserError("The compressed run lengths end within a number.")
    return counts


def rle_mask(counts: Sequence[int] | str, height: int, width: int) -> Mask:
    """(height, width) mask of run lengths: columns one after the other, background first.

    Raises:
        UserError: the runs do not fill the image exactly.
    """
    runs = decode_counts(counts) if isinstance(counts, str) else list(counts)
    if any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in runs):
        raise UserError("The run lengths are not all whole numbers of 0 or more.")
    if sum(runs) != height * width:
        raise UserError(f"The run lengths add up to {sum(runs)}, the image has {height} x {width} pixels.")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def polygon_mask(points: Sequence[float], height: int, width: int) -> Mask:
    """(height, width) mask of the pixels whose centre lies in a polygon; parts outside the image are cut off.

    Args:
        points: x0, y0, x1, y1, ... of three corners or more, in pixels; the upper left pixel's centre is (0.5, 0.5).

    Raises:
        UserError: fewer than three corners, an odd count, or a value that is no number.
    """
    if len(points) < 6 or len(points) % 2 or not all(_is_number(value) for value in points):
        raise UserError(
            f"A polygon needs three corners or more as x, y pairs of numbers, this one has {len(points)} values."
        )
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    # rows whose centre an edge crosses, half open so that a corner shared by two edges counts once
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(corners)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    mask = np.zeros((height, width), bool)
    if len(edge):
        # only the part around the polygon: an odd number of crossings up to a pixel means inside
        top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max() + 1
        size = (bottom - top, right - left)
        places = np.ravel_multi_index((row - top, column - left), size)
        inside = np.cumsum(np.bincount(places, minlength=size[0] * size[1]).reshape(size), axis=1) % 2 == 1
        mask[top:bottom, left:right] = inside[:, : width - left]
    return mask


def segmentation_mask(segmentation: object, height: int, width: int) -> Mask:
    """(height, width) mask of one instance: the union of its polygons, or its runs.

    Raises:
        UserError: neither of the two forms, or damaged.
    """
    if isinstance(segmentation, list) and segmentation and all(isinstance(part, list) for part in segmentation):
        return union((polygon_mask(part, height, width) for part in segmentation), height, width)
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list | str):
        if segmentation.get("size") != [height, width]:
            raise UserError(f"The run lengths are for {segmentation.get('size')}, the image has [{height}, {width}].")
        return rle_mask(segmentation["counts"], height, width)
    raise UserError("The segmentation is neither a list of polygons nor run lengths.")


def union(masks: Iterable[Mask], height: int, width: int) -> Mask:
    """(height, width) mask of the pixels in any of ``masks``."""
    out = np.zeros((height, width), bool)
    for mask in masks:
        out |= mask
    return out


def _is_number(value: object) -> bool:
    # far beyond any image, and small enough for every product of two to be finite
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
