"""Does a map follow the finding, or the anatomy? Phantoms in pairs: one patient, the finding once on either side.

The map of each twin is scored on the box of its own finding and on the box that the finding has in the other twin, where in
this one nothing is. A map that knows the patient's anatomy and nothing of the finding has the same CNR on both, however
high; what the own place has more is what the finding itself adds. Used by ``telling_apart.py`` and
``grounding_controls.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from callbacks.grounding import localisation
from datamodules import LatentShardsDataModule
from meddiff.attribution.grounding_pass import GroundingItem, ground
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.evaluation.samples import GroundingSample, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.statistics import bootstrap_interval, micro_mean
from meddiff.metrics.summary import summarise_defined
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder, prepare_phantom


@dataclass
class Mirrored:
    """What the pairs show.

    Attributes:
        pairs: their number.
        moved: share of them in which the map moves with the finding; chance is a half. It moves when the CNRs on the own
            places are together higher than on the twins' places, so a side that is preferred in both counts for nothing.
        low, high: its 95 % bootstrap interval.
        own, twin: summaries of the scores on the own and on the twin's place.
    """

    pairs: int
    moved: float
    low: float
    high: float
    own: dict[str, float]
    twin: dict[str, float]


def mirrored_cohort(options: PhantomOptions, vae: str, n: int = 160) -> str:
    """Shards of ``n`` phantoms in pairs, of other patients than ``options`` has; written at first use."""
    twins = PhantomOptions(
        n=n, seed=options.seed + 1, mirrored_pairs=True, val=0, fidelity=0, grounding=n, normal=0.0, multiple=0.2
    )
    folder = phantom_folder(twins, vae)
    prepare_phantom(twins, folder, vae, show_progress=False)
    return folder


def mirrored(module: Any, shards: str, timesteps: list[int]) -> Mirrored:
    """Score the maps of all pairs whose finding lies on one side."""
    dataset = LatentShardsDataModule(shards, batch_size=1).dataset("grounding")
    samples, _ = grounding_samples(dataset, list(QUERY_WORDS))
    found: dict[tuple[int, str], list[Any]] = {}
    for sample in samples:
        sides = {site[0] for site in dataset.metadata(sample.index)["attributes"]["findings"][sample.label]["sites"]}
        if len(sides) == 1 and sample.label != "Cardiomegaly":  # one side only: the heart and both sides do not move
            found.setdefault((int(sample.key.split("-")[1]) // 2, sample.label), []).append(sample)
    flat = [sample for pair in found.values() if len(pair) == 2 for sample in pair]
    items = [
        GroundingItem(
            one.key, evaluation_latents(dataset, one.index, 0), one.phrase,
            query_tokens(one.phrase, QUERY_WORDS[one.label]).weights[None],
        )
        for one in flat
    ]  # fmt: skip
    with undisturbed(module):
        maps = ground(module.unet, module.encode_texts, items, module.alphas_cumprod, timesteps)
        full = [resize_maps(heat, flat[i].size)[0] for i, heat in maps]  # (H, W) each
    return score_twins(flat, full)


def score_twins(samples: Sequence[GroundingSample], maps: Sequence[Tensor]) -> Mirrored:
    """Scores of maps (H, W) of samples that are twins two by two: 0 and 1, 2 and 3, ..."""
    own: list[dict[str, Any]] = []
    twin: list[dict[str, Any]] = []
    for i, (sample, heat) in enumerate(zip(samples, maps, strict=True)):
        for rows, place in ((own, sample), (twin, samples[i ^ 1])):
            scores = localisation(heat, torch.from_numpy(place.box_mask()))
            rows.append({"class": sample.label, "miou": None, **scores})
    more = np.array([a["cnr"] - b["cnr"] for a, b in zip(own, twin, strict=True)]).reshape(-1, 2).sum(axis=1)
    moved = (np.sign(more) + 1) / 2  # (pairs,); a half where both twins have the same map
    low, high = bootstrap_interval(lambda weights: micro_mean(moved[None], weights), range(len(moved)))
    return Mirrored(len(moved), float(moved.mean()), low, high, summarise_defined(own), summarise_defined(twin))
