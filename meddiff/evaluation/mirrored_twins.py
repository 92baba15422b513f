"""Does a map follow the finding, or the anatomy? Phantoms in pairs: one patient, the finding once on either side.

The map of each twin is scored on the box of its own finding and on the box that the finding has in the other twin, where in
this one nothing is. A map that knows the patient's anatomy and nothing of the finding has the same CNR on both, however
high; what the own place has more is what the finding itself adds. Source: own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.evaluation.gain import Gains
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.samples import GroundingSample, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.intervals import mean_interval
from meddiff.metrics.summary import summarise_defined
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset


@dataclass
class Mirrored:
    """What the pairs show.

    Attributes:
        pairs: their number.
        moved: share of them in which the map moves with the finding; chance is a half. It moves when the CNRs on the own
            places are together higher than on the twins' places, so a side that is preferred in both counts for nothing.
        low, high: its 95 % interval.
        own, twin: summaries of the scores on the own and on the twin's place.
    """

    pairs: int
    moved: float
    low: float
    high: float
    own: dict[str, float]
    twin: dict[str, float]


def mirrored(
    model: LatentDiffusion, split: LatentShardsDataset, timesteps: Sequence[int], gains: Gains | None = None
) -> Mirrored:
    """Score the maps of all pairs whose finding lies on one side.

    Args:
        split: phantoms in mirrored pairs; numbers 2k and 2k + 1 are twins.
        gains: takes the scores of each map on both places, too.
    """
    return score_twins(*twin_maps(model, split, timesteps), gains)


def twin_maps(
    model: LatentDiffusion, split: LatentShardsDataset, timesteps: Sequence[int]
) -> tuple[list[GroundingSample], list[Tensor]]:
    """Samples of pairs whose finding lies on one side, twins two by two, and the map (H, W) of each one's own phrase."""
    tokenizer = model.text_encoder.tokenizer
    samples, _ = grounding_samples(split, list(QUERY_WORDS))
    found: dict[tuple[int, str], list[GroundingSample]] = {}
    for sample in samples:
        sides = {site[0] for site in split.metadata(sample.index)["attributes"]["findings"][sample.label]["sites"]}
        if len(sides) == 1 and sample.label != "Cardiomegaly":  # one side only: the heart and both sides do not move
            found.setdefault((int(sample.key.split("-")[1]) // 2, sample.label), []).append(sample)
    flat = [sample for pair in found.values() if len(pair) == 2 for sample in pair]
    items = [
        GroundingItem(
            one.key,
            evaluation_latents(split, one.index, 0),
            one.phrase,
            query_tokens(tokenizer, one.phrase, QUERY_WORDS[one.label]).weights[None],
        )
        for one in flat
    ]
    with undisturbed(model):
        maps = mean_over_timesteps(grounding_pass(model, items, timesteps), len(timesteps))
        return flat, [resize_maps(heat, flat[i].size)[0] for i, heat in maps]


def score_twins(samples: Sequence[GroundingSample], maps: Sequence[Tensor], gains: Gains | None = None) -> Mirrored:
    """Scores of maps (H, W) of samples that are twins two by two: 0 and 1, 2 and 3, ..."""
    own: list[Row] = []
    twin: list[Row] = []
    more = np.zeros(len(samples))
    for i, (sample, heat) in enumerate(zip(samples, maps, strict=True)):
        here, there = (localisation(heat, torch.from_numpy(at.box_mask())) for at in (sample, samples[i ^ 1]))
        own.append({"class": sample.label, "miou": None, **here})
        twin.append({"class": sample.label, "miou": None, **there})
        more[i] = here["cnr"] - there["cnr"]
        if gains is not None:
            gains.add_elsewhere(sample, heat, {"twin": (samples[i ^ 1].box_mask(), samples[i ^ 1].index)})
    more = more.reshape(-1, 2).sum(axis=1)  # (pairs,)
    moved = (np.sign(more) + 1) / 2  # (pairs,); a half where both twins have the same map
    low, high = mean_interval(moved[None], range(len(moved)), share=True)
    return Mirrored(len(moved), float(moved.mean()), low, high, summarise_defined(own), summarise_defined(twin))
