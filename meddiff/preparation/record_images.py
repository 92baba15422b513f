"""A cohort's record as a sample: its file read, cropped and resized, boxes and masks along with it. Source: own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.preparation.geometry import resize_image, resize_mask, transform_boxes, transform_phrases
from meddiff.preparation.images import UnreadableImage, read_image
from meddiff.preparation.records import Record
from meddiff.preparation.safe_files import inside
from meddiff.shards.members import IMAGE_SPLITS
from meddiff.shards.sample import CohortSample

Masks = Callable[[Record, tuple[int, int]], dict[str, NDArray[np.bool_]]]


@dataclass(frozen=True)
class RecordImages:
    """Makes samples of records; small enough to send to any process.

    Args:
        root: of the cohort.
        resolution: side of the stored image in pixels.
        native_masks: of a reading; asked only for splits whose samples carry masks.
    """

    root: Path
    resolution: int
    native_masks: Masks | None = None

    def __call__(self, record: Record) -> CohortSample:
        """Read, crop and resize.

        Raises:
            UnreadableImage: no usable file, or not of the size its boxes were drawn for.
            UserError: the file lies outside the root.
        """
        image = read_image(inside(self.root, record.path))
        height, width = image.shape[:2]
        native = record.attributes.get("native_size")
        if native and record.boxes and list(native) != [width, height]:
            raise UnreadableImage(f"{width} x {height} pixels, but its boxes were drawn for {native[0]} x {native[1]}")
        size = (width, height)
        moved = transform_boxes(record.boxes, size, self.resolution)
        counted = {"boxes_cut": moved.cut, "boxes_lost": moved.lost}
        masks = self.native_masks(record, (height, width)) if self.native_masks and record.split in IMAGE_SPLITS else {}
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
            masks={name: resize_mask(mask, self.resolution) for name, mask in masks.items()},
            attributes=dict(record.attributes)
            | {"native_size": [width, height]}
            | {name: number for name, number in counted.items() if number},
            source=record.path,
        )
