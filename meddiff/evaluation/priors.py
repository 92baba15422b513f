"""What a grounding figure has to be read against: the answers of predictors that never look at the image.

One knows where a finding usually is, one points at the centre, one at random.
Source: own (a centre or location prior is the usual control of the pointing game; Zhang et al. 2016).
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.evaluation.samples import GroundingSample, Pixels, grounding_samples
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.grounding import GroundingScores
from meddiff.shards.dataset import LatentShardsDataset

#: Side of a random map, that of the attention maps of a U-Net on latents of 32 to 64.
RANDOM_SIDE = 16
#: Images of the training split whose boxes are counted; more change nothing that is printed.
ENOUGH = 4000


class Located(Protocol):
    """What a prior is told of a sample: everything but the image."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def phrase(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def box_mask(self) -> Pixels: ...


Sample = TypeVar("Sample", bound=Located)


def box_frequencies(samples: Sequence[Located]) -> dict[str, Tensor]:
    """label -> how often each pixel lies in a box of the label, (H, W) float64."""
    heat: dict[str, Tensor] = {}
    for sample in samples:
        mask = torch.from_numpy(sample.box_mask()).double()
        heat[sample.label] = heat[sample.label] + mask if sample.label in heat else mask
    return heat


def location_prior(
    train: LatentShardsDataset | None, samples: Sequence[Located], classes: Sequence[str]
) -> dict[str, float]:
    """Scores of a predictor that answers every phrase of a class with the mean box of the class.

    Args:
        train: where boxes are counted; where it has none (real cohorts rarely box their training images) or None, each
            sample is answered with the boxes of all other samples of its class.
        samples: what is scored.

    Returns:
        The keys of :func:`meddiff.metrics.summary.summarise`.
    """
    learned = box_frequencies(_training_samples(train, samples, classes)) if train is not None else {}
    own = box_frequencies(samples) if any(sample.label not in learned for sample in samples) else {}

    def usual(sample: Located) -> Tensor:
        heat = learned.get(sample.label)
        return own[sample.label] - torch.from_numpy(sample.box_mask()).double() if heat is None else heat

    return _scores(samples, usual)


def centre_prior(samples: Sequence[Located]) -> dict[str, float]:
    """Scores of a Gaussian in the middle of the image, a quarter of its sides wide."""

    def centre(sample: Located) -> Tensor:
        y, x = (torch.linspace(-2.0, 2.0, side, dtype=torch.float64) for side in sample.size)
        return torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2)  # (H, W)

    return _scores(samples, centre)


def random_maps(samples: Sequence[Located], seed: int = 0) -> dict[str, float]:
    """Scores of maps of independent normal numbers, :data:`RANDOM_SIDE` wide and enlarged as attention maps are."""

    def noise(sample: Located) -> Tensor:
        draw = generator(seed, "random map", sample.key, sample.label, sample.phrase)
        coarse = torch.from_numpy(draw.standard_normal((1, RANDOM_SIDE, RANDOM_SIDE)))
        return resize_maps(coarse, sample.size)[0]  # (H, W)

    return _scores(samples, noise)


def grounding_priors(
    train: LatentShardsDataset | None, samples: Sequence[Located], classes: Sequence[str], seed: int = 0
) -> dict[str, dict[str, float]]:
    """All three, as they stand in ``controls.json``."""
    return {
        "prior": location_prior(train, samples, classes),
        "centre": centre_prior(samples),
        "random": random_maps(samples, seed),
    }


def _scores(samples: Sequence[Sample], answer: Callable[[Sample], Tensor]) -> dict[str, float]:
    """Averages of what ``answer`` gives for each sample, (H, W)."""
    metric = GroundingScores(sorted({sample.label for sample in samples}), sync_on_compute=False)
    for sample in samples:  # images may differ in size
        metric.update(answer(sample)[None], torch.from_numpy(sample.box_mask())[None], [sample.label])
    return {name: value for name, value in metric.compute().items() if math.isfinite(value)}


def _training_samples(
    train: LatentShardsDataset, samples: Sequence[Located], classes: Sequence[str]
) -> list[GroundingSample]:
    try:
        found, _ = grounding_samples(train, classes, images=ENOUGH)
    except UserError:  # no boxes in training
        return []
    return [one for one in found if one.size == samples[0].size]
