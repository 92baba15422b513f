"""What the evaluations read from shards: (image, class, phrase) triples for grounding, prompts and images for fidelity.

Nothing is dropped silently: whatever cannot be scored comes back as an :class:`Exclusion` with its reason.
Source: spec/tradeoff.md sections 1.4 and 5; the order and the draws own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.metrics.functional import box_windows
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.latents import scale_latent
from meddiff.shards.schema import BoxRecord

Pixels = NDArray[np.bool_]


@dataclass(frozen=True)
class GroundingSample:
    """One phrase about one image.

    Attributes:
        index: of the image in its split.
        boxes: (n, 4) x, y, w, h of this phrase's finding in pixels of the stored image, cut to the image.
        size: (height, width) of the stored image.
    """

    index: int
    key: str
    label: str
    phrase: str
    boxes: NDArray[np.float64]
    size: tuple[int, int]

    def box_mask(self) -> Pixels:
        """Union of the boxes, (H, W), by the rule of :func:`meddiff.metrics.functional.box_windows`."""
        mask = np.zeros(self.size, bool)
        for window in box_windows(self.boxes, self.size):
            mask[window] = True
        return mask


@dataclass(frozen=True)
class Exclusion:
    """A phrase that cannot be scored, and why."""

    key: str
    label: str
    phrase: str
    reason: str


def grounding_samples(
    dataset: LatentShardsDataset,
    classes: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    images: int | None = None,
) -> tuple[list[GroundingSample], list[Exclusion]]:
    """All phrases of a split that name one of ``classes`` and have a box, in the order of their keys.

    Args:
        limit: take that many, drawn by (seed, key) and balanced over classes, so that a rare class is not lost; None
            takes all.
        images: look at so many images only.

    Raises:
        UserError: nothing can be scored.
    """
    found: list[GroundingSample] = []
    excluded: list[Exclusion] = []
    for index, key in enumerate(dataset.keys[:images]):
        metadata = dataset.metadata(index)
        size = (int(metadata["height"]), int(metadata["width"]))
        for phrase in metadata["phrases"]:
            label, text = phrase["label"], phrase["text"]
            if label not in classes:
                excluded.append(Exclusion(key, label, text, "class without query words"))
                continue
            boxes = _inside(phrase["boxes"], size)
            if not len(boxes):
                reason = "boxes outside the image" if phrase["boxes"] else "no box"
                excluded.append(Exclusion(key, label, text, reason))
                continue
            found.append(GroundingSample(index, key, label, text, boxes, size))
    if not found:
        known = ", ".join(sorted({one.reason for one in excluded})) or "it holds no phrases"
        raise UserError(
            f"The split {dataset.split!r} of {dataset.folder} has nothing to ground ({known}): prepare a grounding split "
            f"with phrases and boxes, or take the grounding callback out."
        )
    return (found if limit is None else balanced(found, limit, seed)), excluded


def _inside(boxes: Sequence[BoxRecord], size: tuple[int, int]) -> NDArray[np.float64]:
    """The parts of boxes that lie in the image, (n, 4); boxes wholly outside are gone."""
    kept = []
    for box in boxes:
        x0, y0 = max(float(box["x"]), 0.0), max(float(box["y"]), 0.0)
        x1, y1 = min(float(box["x"] + box["w"]), size[1]), min(float(box["y"] + box["h"]), size[0])
        if x1 > x0 and y1 > y0:
            kept.append((x0, y0, x1 - x0, y1 - y0))
    return np.array(kept, np.float64).reshape(-1, 4)


def balanced(samples: Sequence[GroundingSample], limit: int, seed: int = 0) -> list[GroundingSample]:
    """``limit`` of ``samples``: classes take turns, within a class by a draw of its own."""
    by_class: dict[str, list[tuple[float, int]]] = {}
    for place, sample in enumerate(samples):
        draw = float(generator(seed, "grounding subset", sample.key, sample.label, sample.phrase).random())
        by_class.setdefault(sample.label, []).append((draw, place))
    queues = [sorted(queue) for _, queue in sorted(by_class.items())]
    turns = [queue[turn][1] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return [samples[place] for place in sorted(turns[:limit])]


def evaluation_latents(dataset: LatentShardsDataset, index: int, seed: int, mean_only: bool = False) -> Tensor:
    """Scaled latents (C, h, w) of one image; the posterior draw hangs on (seed, key) alone.

    Raises:
        UserError: they are not finite.
    """
    manifest = dataset.manifest
    posterior = manifest.latent == "moments" and not mean_only
    out = np.empty(manifest.latent_shape, np.float32)
    address = (seed, "posterior", "val", dataset.keys[index])
    scale_latent(dataset.latent(index), address, out, manifest.scaling_factor, posterior)
    if not np.isfinite(out).all():
        raise UserError(
            f"{dataset.folder} holds a latent that is not finite for {dataset.keys[index]!r}: run prepare again for it."
        )
    return torch.from_numpy(out)


def image_tensor(dataset: LatentShardsDataset, index: int) -> Tensor:
    """The stored image, (3, H, W) in [-1, 1]."""
    return pixels_tensor(np.array(dataset.image(index)))


def pixels_tensor(image: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W) or (H, W, 3) -> (3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(image).float() / 127.5 - 1.0
    return pixels.expand(3, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)
