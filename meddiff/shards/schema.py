"""What ``KEY.json`` of a sample and ``manifest.json`` of a folder hold: the one place that knows.

Source: own; design, "Shard schema".
"""

from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray


class BoxRecord(TypedDict):
    """A box in pixels of the stored crop: ``x``, ``y`` is the upper left corner."""

    label: str
    x: float
    y: float
    w: float
    h: float


class PhraseRecord(TypedDict):
    """A phrase that names one finding, with the boxes it refers to."""

    text: str
    label: str
    boxes: list[BoxRecord]


class SampleMetadata(TypedDict):
    """``KEY.json``; see :class:`meddiff.shards.sample.CohortSample`, which it is written from.

    ``mask_names`` maps the part of a file name to the name of the mask; ``width`` and ``height`` are of the stored crop.
    """

    impression: str
    labels: list[str]
    split: str
    patient_id: str
    view: str
    captions: list[str]
    phrases: list[PhraseRecord]
    boxes: list[BoxRecord]
    attributes: dict[str, Any]
    source: str
    width: int
    height: int
    mask_names: dict[str, str]


class StoredSample(SampleMetadata):
    """All that is read of a sample at once: ``latent`` float16 (2C, h, w) moments or (C, h, w) mean, before scaling."""

    key: str
    latent: NDArray[np.float16]


#: The autoencoder that made a folder's latents, what a model must agree with: ``scaling_factor`` multiplies a latent
#: before it meets the U-Net, ``downsample`` are pixels per latent along one side. (A call, because of the name "class".)
VaeIdentity = TypedDict(
    "VaeIdentity",
    {
        "class": str,
        "sha256": str,
        "source": str,
        "scaling_factor": float,
        "latent_channels": int,
        "downsample": int,
    },
)


class SplitCounts(TypedDict):
    """What the shards of a split count together: samples, label -> samples that carry it; the others where there are any.

    ``unreadable`` are planned images that could not be read, ``boxes`` {"kept", "cut", "lost"} those in the crop, cut by
    it, and outside it.
    """

    samples: int
    labels: dict[str, int]
    unreadable: NotRequired[int]
    boxes: NotRequired[dict[str, int]]
