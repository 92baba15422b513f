"""What a grounding figure has to be read against: the answers of predictors that never look at the image.

One knows where a finding usually is, one points at the centre, one at random.
Source: own (a centre or location prior is the usual control of the pointing game; Zhang et al. 2016).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.progress import progress_bar
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, Pixels, grounding_samples
from meddiff.metrics.functional import mixture_threshold, resize_maps
from meddiff.metrics.grounding import GroundingScores
from meddiff.metrics.summary import Score, summarise
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


def box_frequencies(samples: Sequence[Located]) -> dict[str, Tensor]:
    """label -> how often each pixel lies in a box of the label, (H, W) float64."""
    heat: dict[str, Tensor] = {}
    for sample in samples:
        mask = torch.from_numpy(sample.box_mask()).double()
        heat[sample.label] = heat[sample.label] + mask if sample.label in heat else mask
    return heat


class Answer(NamedTuple):
    """A map (H, W), and the threshold (1,) of its foreground where it is known: a fit that many samples can share."""

    heat: Tensor
    threshold: Tensor | None = None


#: What a predictor answers a sample with.
Predictor = Callable[[Located], Answer]


def usual_place(train: LatentShardsDataset | None, samples: Sequence[Located], classes: Sequence[str]) -> Predictor:
    """Answers every phrase of a class with the mean box of the class.

    Args:
        train: where boxes are counted; where it has none (real cohorts rarely box their training images) or None, each
            sample is answered with the boxes of all other samples of its class.
        samples: what is scored.
    """
    # counts are whole numbers: float32 holds them exactly and is sorted several times faster
    boxes = box_frequencies(_training_samples(train, samples, classes)) if train is not None else {}
    learned = {label: _with_threshold(heat.float()) for label, heat in boxes.items()}
    own = box_frequencies(samples) if any(sample.label not in learned for sample in samples) else {}

    def usual(sample: Located) -> Answer:
        answer = learned.get(sample.label)
        if answer is None:
            others = own[sample.label] - torch.from_numpy(sample.box_mask()).double()
            answer = Answer(others.float())
        return answer

    return usual


def middle() -> Predictor:
    """A Gaussian in the middle of the image, a quarter of its sides wide."""

    @cache
    def centre(size: tuple[int, int]) -> Answer:
        y, x = (torch.linspace(-2.0, 2.0, side, dtype=torch.float64) for side in size)
        return _with_threshold(torch.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2))  # (H, W)

    return lambda sample: centre(sample.size)


def centre_prior(samples: Sequence[Located]) -> dict[str, float]:
    """Scores of :func:`middle`."""
    return _summary(_rows(samples, middle()))


def chance(seed: int = 0) -> Predictor:
    """Maps of independent normal numbers, :data:`RANDOM_SIDE` wide and enlarged as attention maps are."""

    def noise(sample: Located) -> Answer:
        draw = generator(seed, "random map", sample.key, sample.label, sample.phrase)
        coarse = torch.from_numpy(draw.standard_normal((1, RANDOM_SIDE, RANDOM_SIDE)))
        return Answer(resize_maps(coarse, sample.size)[0])  # (H, W)

    return noise


def random_maps(samples: Sequence[Located], seed: int = 0) -> dict[str, float]:
    """Scores of :func:`chance`."""
    return _summary(_rows(samples, chance(seed)))


def grounding_priors(
    train: LatentShardsDataset | None,
    samples: Sequence[Located],
    classes: Sequence[str],
    seed: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen dataclass)
    show_progress: bool = False,
) -> dict[str, dict[str, float]]:
    """All three, as they stand in ``controls.json``; each rank scores its share of the samples."""
    predictors = {"prior": usual_place(train, samples, classes), "centre": middle(), "random": chance(seed)}
    mine = ranks.share(samples)
    with progress_bar(len(predictors) * len(mine), "phrase", "controls of grounding", show_progress) as bar, one_core():
        found = {name: _rows(mine, answer, bar.update) for name, answer in predictors.items()}
    parts = ranks.gather([found])
    return {name: _summary([row for part in parts for row in part[name]]) for name in predictors}


def _with_threshold(heat: Tensor) -> Answer:
    return Answer(heat, mixture_threshold(heat[None]))


def _rows(
    samples: Sequence[Located], answer: Predictor, told: Callable[[int], object] | None = None
) -> list[dict[str, Score]]:
    """The scores of each sample."""
    metric = GroundingScores(sorted({sample.label for sample in samples}) or [""], sync_on_compute=False)
    for sample in samples:  # images may differ in size
        heat, threshold = answer(sample)
        metric.update(heat[None], torch.from_numpy(sample.box_mask())[None], [sample.label], threshold)
        if told is not None:
            told(1)
    return metric.rows()


def _summary(rows: Sequence[dict[str, Score]]) -> dict[str, float]:
    return {name: value for name, value in summarise(rows).items() if math.isfinite(value)}


def _training_samples(
    train: LatentShardsDataset, samples: Sequence[Located], classes: Sequence[str]
) -> list[GroundingSample]:
    try:
        found, _ = grounding_samples(train, classes, images=ENOUGH)
    except UserError:  # no boxes in training
        return []
    return [one for one in found if one.size == samples[0].size]
