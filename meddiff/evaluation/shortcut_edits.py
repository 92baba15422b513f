"""Two ways to put more of a finding into a picture: by prototypes, and by words. Source: own.

Prototypes: those that grow most with the finding (signed AUROC on images in which the confounder is independent of it), all
of them set to the top and to the bottom of their own ranges; or every prototype moved by what images with and without the
finding differ in on average, there and back, which leaves none of them behind that goes with the others. Drawn from the noise
that the image was inverted to. Words:
the caption of an image that has the finding and that of one that has not, drawn from the same noise. Captions never speak
of a confounder, so what moves it is what the model has learned.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.attribution.inversion import ddim_grid, denoise, edited
from meddiff.attribution.prototype_edits import inverted
from meddiff.attribution.prototype_statistics import HIGH, LOW, mahalanobis, own_levels, spread_of
from meddiff.common.draws import generator
from meddiff.evaluation.concept_scores import flags_of
from meddiff.evaluation.prototype_inputs import activations_of, inputs_of
from meddiff.evaluation.prototype_naming import aurocs, best_of
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

Pictures = NDArray[np.uint8]


class Edited(NamedTuple):
    """A batch of images with little and with much of the finding.

    Attributes:
        down, up: uint8 (n, H, W, 3).
        odd: (n,) how far the vector that was drawn up lies from those of real images, 1 for a real one; NaN for words.
    """

    down: Pictures
    up: Pictures
    odd: NDArray[np.float64]


class Way(Protocol):
    """One way to edit.

    Attributes:
        cost: U-Net evaluations an image.
        told: what is edited, for the table.
    """

    cost: float
    told: str

    @property
    def model(self) -> LatentDiffusion: ...

    def draw(self, indices: Sequence[int]) -> Edited:
        """The images of a split, edited down and up."""
        ...


class ByPrototypes:
    """Raise and lower the prototypes of a finding.

    Args:
        taught: indices of images that say which prototypes and which levels.
        steps: timesteps of inversion and drawing.
        top: how many prototypes; None moves all of them by the difference of means.
        scale: how many of these differences.

    Attributes:
        prototypes: their numbers; empty where none grows with the finding.
        difference: (m,) mean activations of images with the finding less those of images without.
        rise: (m,) signed AUROC of each prototype with the finding.
        along: (m,) the same with the confounder.
    """

    def __init__(
        self,
        model: Patronus,
        split: LatentShardsDataset,
        taught: Sequence[int],
        concepts: tuple[str, str],
        steps: int,
        top: int | None,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.model, self.split, self.seed, self.top, self.scale = model, split, seed, top, scale
        self.timesteps = ddim_grid(steps, len(model.noise_schedule.alphas_cumprod))
        self.cost = prototype_cost(steps)
        values = activations_of(model.prototypes, inputs_of(split, seed), taught)
        flags = np.column_stack([flags_of(split, taught, name) for name in concepts])
        areas = aurocs(values, flags)
        self.rise, self.along = areas[:, 0], areas[:, 1]
        self.prototypes = list(range(model.m)) if top is None else best_of(areas, 0, top)
        has = flags[:, 0].astype(bool)
        self.difference = values[has].mean(axis=0) - values[~has].mean(axis=0)
        self.low, self.high, self.spread = own_levels(values, LOW), own_levels(values, HIGH), spread_of(values)
        best = " ".join(f"{one} ({self.rise[one]:.2f})" for one in self.prototypes)
        self.told = best if top is not None else "difference of means" + (f", {scale:g} times" if scale != 1 else "")

    def draw(self, indices: Sequence[int]) -> Edited:
        """The images inverted once, and drawn twice."""
        inputs = inputs_of(self.split, self.seed)
        texts = captions(self.split, indices) if self.model.reads_text else None
        x0 = torch.stack([inputs(index) for index in indices])  # (n, C, h, w)
        start = inverted(self.model, x0, self.timesteps, texts)
        pictures, odd = [], np.empty(0)
        for levels, sign in ((self.low, -1.0), (self.high, 1.0)):
            if self.top is None:
                step = self.scale * torch.from_numpy(self.difference).to(start.activations)
                told = start.activations + sign * step
            else:
                told = edited(start.activations, {one: float(levels[one]) for one in self.prototypes})
            odd = mahalanobis(self.spread, told.double().cpu().numpy())
            with torch.no_grad():
                conditioning = self.model.conditioning(told, texts)
            pictures.append(self.model.to_images(denoise(self.model, start.noise, conditioning, self.timesteps)))
        return Edited(pictures[0], pictures[1], odd)


class ByWords:
    """Ask for the finding and for an image without it, from the same noise.

    Args:
        taught: indices of images whose captions may be asked by.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        taught: Sequence[int],
        finding: str,
        sampling: SamplingOptions | None,
        seed: int = 0,
    ) -> None:
        self.model, self.split, self.seed, self.sampling = model, split, seed, sampling or model.sampling
        self.cost, self.told = 2.0 * self.sampling.forward_passes, "captions"
        flags = flags_of(split, taught, finding)
        self._having = [index for index, has in zip(taught, flags, strict=True) if has]
        self._lacking = [index for index, has in zip(taught, flags, strict=True) if not has]

    def draw(self, indices: Sequence[int]) -> Edited:
        """Two pictures of the noise of each image."""
        keys = [self.split.keys[index] for index in indices]
        pictures = []
        for place, some in enumerate((self._lacking, self._having)):
            draws = [generator(self.seed, "caption of the edit", place, key) for key in keys]
            chosen = [some[int(draw.integers(len(some)))] for draw in draws]
            pictures.append(self.model.sample(captions(self.split, chosen), keys, self.seed, self.sampling))
        return Edited(pictures[0], pictures[1], np.full(len(indices), np.nan))


def captions(split: LatentShardsDataset, indices: Sequence[int]) -> list[str]:
    """The impressions of images."""
    return [str(split.metadata(index)["impression"]) for index in indices]


def prototype_cost(steps: int) -> float:
    """U-Net evaluations of one image: two a step of the inversion, one a step of either drawing."""
    return 4.0 * steps
