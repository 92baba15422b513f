"""What a batch holds, and who counts the images of a run: the contract between data modules and what they feed. Source: own."""

from typing import Protocol, TypedDict, runtime_checkable

from torch import Tensor


class LatentBatch(TypedDict):
    """Latents with their texts and all random numbers of a training step, as a data module hands them over.

    Shapes: ``latents`` and ``noise`` float32 (B, C, h, w), latents scaled; ``timestep_uniform`` and ``dropout_uniform``
    float64 (B,) in [0, 1); ``weight`` float32 (B,), 0 for padding. ``epoch`` is -1 in evaluation.
    """

    key: list[str]
    epoch: list[int]
    caption: list[str]
    labels: list[list[str]]
    latents: Tensor
    noise: Tensor
    timestep_uniform: Tensor
    dropout_uniform: Tensor
    weight: Tensor


class TokenBatch(TypedDict):
    """A :class:`LatentBatch` ready for the device: ``tokens`` int64 (B, 77) and ``timesteps`` int64 (B,) are drawn."""

    key: list[str]
    epoch: list[int]
    caption: list[str]
    labels: list[list[str]]
    latents: Tensor
    noise: Tensor
    tokens: Tensor
    timesteps: Tensor
    weight: Tensor


class ImageItem(TypedDict):
    """One image with its labels: ``image`` float32 (3, H, W) in [-1, 1]."""

    image: Tensor
    key: str
    labels: list[str]


class ImageBatch(TypedDict):
    """Images with their labels: ``image`` float32 (B, 3, H, W) in [-1, 1]."""

    image: Tensor
    key: list[str]
    labels: list[list[str]]


@runtime_checkable
class CountsImages(Protocol):
    """A data module that knows how far a run has come; ``batch_size`` is that of one optimiser step over all ranks."""

    batch_size: int

    @property
    def images_consumed(self) -> int:
        """Images the optimiser has seen, over all ranks."""
        ...
