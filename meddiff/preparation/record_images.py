"""A cohort's record as a sample: its file read, cropped and resized, boxes and masks along with it. Source: own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.common.findings import NO_FINDING
from meddiff.preparation.geometry import resize_image, resize_mask, transform_boxes, transform_phrases
from meddiff.preparation.images import UnreadableImage, read_image
from meddiff.preparation.mask_files import mask_boxes
from meddiff.preparation.records import Record
from meddiff.preparation.safe_files import inside
from meddiff.shards.members import IMAGE_SPLITS
from meddiff.shards.sample import Box, CohortSample, Phrase

Masks = Callable[[Record, tuple[int, int]], dict[str, NDArray[np.bool_]]]


@dataclass(frozen=True)
class RecordImages:
    """Makes samples of records; small enough to send to any process.

    Args:
        root: of the cohort.
        resolution: side of the stored image in pixels.
        native_masks: of a reading; asked only for splits whose samples carry masks.
        pictures: of a reading; None reads the record's file.
        window: of a reading.
    """

    root: Path
    resolution: int
    native_masks: Masks | None = None
    pictures: Callable[[Record], NDArray[np.uint8]] | None = None
    window: tuple[float, float] | None = None

    def __call__(self, record: Record) -> CohortSample:
        """Read, crop and resize.

        What a person should know of a sample that is kept goes into its attributes: ``boxes_cut``, ``boxes_lost`` (by the
        crop), ``boxes_beyond`` (reaching out of the image itself), ``masks_empty``, ``masks_full``, ``masks_lost`` (names).

        Raises:
            UnreadableImage: no usable file, one value everywhere, or not of the size its boxes were drawn for.
            UserError: the file lies outside the root.
        """
        image = self.pictures(record) if self.pictures else read_image(inside(self.root, record.path), self.window)
        if image.min() == image.max():
            raise UnreadableImage(f"every pixel has the value {image.flat[0]}")
        height, width = image.shape[:2]
        native = record.attributes.get("native_size")
        if native and record.boxes and list(native) != [width, height]:
            raise UnreadableImage(f"{width} x {height} pixels, but its boxes were drawn for {native[0]} x {native[1]}")
        size = (width, height)
        masks = self.native_masks(record, (height, width)) if self.native_masks and record.split in IMAGE_SPLITS else {}
        record, masked = with_mask_boxes(record, masks)
        moved = transform_boxes(record.boxes, size, self.resolution)
        stored = {name: resize_mask(mask, self.resolution) for name, mask in masks.items()}
        beyond = sum(reaches_out(box, size) for box in record.boxes)
        seen: dict[str, object] = {"boxes_cut": moved.cut, "boxes_lost": moved.lost, "boxes_beyond": beyond}
        seen |= {"boxes_from_masks": masked} | _odd_masks(masks, stored)
        return CohortSample(
            key=record.key,
            image=resize_image(image, self.resolution),
            impression=record.impression,
            labels=list(record.labels),
            split=record.split,
            patient_id=record.patient_id,
            view=record.view,
            captions=list(record.captions),
            phrases=list(transform_phrases(record.phrases, size, self.resolution)),
            boxes=list(moved.kept),
            masks=stored,
            attributes=dict(record.attributes)
            | {"native_size": [width, height]}
            | {name: found for name, found in seen.items() if found},
            source=record.path,
        )


def with_mask_boxes(record: Record, masks: Mapping[str, NDArray[np.bool_]]) -> tuple[Record, list[str]]:
    """A record of the grounding split with a phrase and boxes for each mask file that has none.

    Phrases are scored on boxes, so that an image with masks alone could not be grounded.

    Returns:
        the record, and the names of these masks.
    """
    if record.split != "grounding" or not record.attributes.get("mask_files"):
        return record, []
    known = {box.label for box in record.boxes}
    found = {name: mask_boxes(name, mask) for name, mask in masks.items() if name not in known and name != NO_FINDING}
    found = {name: boxes for name, boxes in found.items() if boxes}
    boxes = (*record.boxes, *(box for some in found.values() for box in some))
    phrases = (*record.phrases, *(Phrase(name, name, some) for name, some in found.items()))
    return replace(record, boxes=boxes, phrases=phrases), list(found)


def reaches_out(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box in native pixels goes more than a pixel beyond the right or lower edge of its image (width, height)."""
    return box.x + box.w > size[0] + 1 or box.y + box.h > size[1] + 1


def _odd_masks(masks: Mapping[str, NDArray[np.bool_]], stored: Mapping[str, NDArray[np.bool_]]) -> dict[str, list[str]]:
    """Names of masks that are empty, cover the whole image, or lie wholly outside the crop; kinds without any are absent."""
    kinds = {
        "masks_empty": [name for name, mask in masks.items() if not mask.any()],
        "masks_full": [name for name, mask in masks.items() if mask.all()],
        "masks_lost": [name for name, mask in masks.items() if mask.any() and not stored[name].any()],
    }
    return {kind: names for kind, names in kinds.items() if names}
