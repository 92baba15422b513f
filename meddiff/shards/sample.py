"""The one thing every cohort reader yields and the shard writer takes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A box in pixels of the stored crop: ``x``, ``y`` is the upper left corner."""

    label: str
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True)
class Phrase:
    """A phrase of the text that names one finding, with the boxes it refers to."""

    text: str
    label: str
    boxes: tuple[Box, ...] = ()


@dataclass
class CohortSample:
    """One image of a cohort, resized and cropped, before it is encoded.

    Attributes:
        key: unique name, no dots, no slashes; sorting by key fixes the order of the shards.
        image: uint8, (H, W) grey or (H, W, 3) RGB, already at the cohort's resolution.
        impression: the text the image is paired with.
        labels: names of :data:`FINDINGS`, or ``[NO_FINDING]``, or a cohort's own classes.
        captions: equally valid texts when there are several (MS-COCO); empty means ``[impression]``.
        masks: name -> bool (H, W); names are classes or confounders, stored as ``KEY.mask.<slug>.png``.
        attributes: anything else worth keeping (JSON): side, severity, confounders present, ...
        source: path relative to the cohort's root, or an address inside a generator.
    """

    key: str
    image: NDArray[np.uint8]
    impression: str
    labels: list[str]
    split: str
    patient_id: str
    view: str = ""
    captions: list[str] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    source: str = ""
