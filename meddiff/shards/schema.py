"""What ``KEY.json`` of a sample holds: the one place that knows. Source: own; design, "Shard schema"."""

from typing import Any, TypedDict


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
