"""A model that was trained to ground, scored as every rival is: BioViL-T, where its files are given.

Its map is smoothed on the grid of patches, not below 0, and brought to the image by nearest neighbour; what lies outside the
square that it sees is in no score. Source: the publisher's package and Vilouras et al.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from meddiff.evaluation.rival_maps import Answer, Asking, OnProgress
from meddiff.metrics.functional.map_filters import smoothed
from meddiff.models.biovil_t import BiovilT, Pixels, seen_of
from meddiff.models.latent_diffusion import LatentDiffusion

#: Width of the Gaussian, in patches.
SIGMA = 1.5


class Baseline:
    """Maps of BioViL-T.

    Args:
        folder: of its files.
        image: number of an image in its split -> the stored picture, uint8 (H, W) or (H, W, 3).
    """

    name, each = "biovil_t", 0.0
    presets: tuple[str, ...] = ("biovil_t",)

    def __init__(self, folder: Path, image: Callable[[int], Pixels]) -> None:
        self.encoders, self.image = BiovilT(folder), image

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """No evaluation of the U-Net."""
        return 0.0

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """One map an asking; NaN outside of what it sees."""
        found = []
        for image, phrase, _ in askings:
            similarity = self.encoders.similarity(self.image(image.index), phrase.phrase)
            found.append(Answer({self.name: placed(similarity, image.size)}))
        return found


def placed(similarity: Tensor, size: tuple[int, int]) -> Tensor:
    """Cosines (h, w) of patches as a map (H, W) of the image, float64."""
    heat = smoothed(similarity[None], SIGMA).clamp_min(0.0)
    top, bottom, left, right = seen_of(size)
    whole = torch.full(size, torch.nan, dtype=heat.dtype)
    shown = torch.nn.functional.interpolate(heat[None], size=(bottom - top, right - left), mode="nearest-exact")[0, 0]
    whole[top:bottom, left:right] = shown
    return whole
