"""What a grounding figure has to be read against: the answer of someone who knows only where a finding usually is.

Source: own (a centre or location prior is the usual control of the pointing game; Zhang et al. 2016).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from datamodules.datasets import LatentShardsDataset
from datamodules.evaluation_sets import GroundingSample, grounding_samples
from metrics.grounding import score_maps
from metrics.summary import summarise

#: Images of the training split whose boxes are counted; more change nothing that is printed.
ENOUGH = 4000


def box_frequencies(samples: Sequence[GroundingSample]) -> dict[str, Tensor]:
    """label -> how often each pixel lies in a box of the label, (H, W) float64."""
    heat: dict[str, Tensor] = {}
    for sample in samples:
        mask = torch.from_numpy(sample.box_mask()).double()
        heat[sample.label] = heat[sample.label] + mask if sample.label in heat else mask
    return heat


def location_prior(
    train: LatentShardsDataset | None, samples: Sequence[GroundingSample], classes: Sequence[str]
) -> dict[str, float]:
    """Scores of a predictor that answers every phrase of a class with the mean box of the class.

    Args:
        train: where boxes are counted; where it has none (real cohorts rarely box their training images) or None, each
            sample is answered with the boxes of all other samples of its class.
        samples: what is scored.

    Returns:
        The keys of :func:`metrics.summary.summarise`.
    """
    learned = box_frequencies(_training_samples(train, samples, classes)) if train is not None else {}
    own = box_frequencies(samples) if any(sample.label not in learned for sample in samples) else {}
    rows: list[dict[str, Any]] = []
    for sample in samples:
        mask = torch.from_numpy(sample.box_mask())
        heat = learned.get(sample.label)
        heat = (own[sample.label] - mask.double() if heat is None else heat)[None]
        rows.append({"class": sample.label, **{k: float(v) for k, v in score_maps(heat, mask[None]).items()}})
    return {name: value for name, value in summarise(rows).items() if np.isfinite(value)}


def _training_samples(
    train: LatentShardsDataset, samples: Sequence[GroundingSample], classes: Sequence[str]
) -> list[GroundingSample]:
    try:
        found, _ = grounding_samples(train, classes, images=ENOUGH)
    except UserError:  # no boxes in training
        return []
    return [one for one in found if one.size == samples[0].size]
