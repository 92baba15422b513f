"""Do words tell findings apart? In images with findings A and B: does A's word fit A's mask better than B's?

- ``first``: share of pairs in which A's word has a higher CNR on A's mask than on B's (95 % interval over images)
- ``own``, ``other``: mean CNRs over the pairs; a map that only says where something is abnormal has the same in both
- ``eos_first``: the same share for the end token, which names no finding: the control

Chance is a half. Phrases that name their finding by none of the query words are left out, and counted. Source: own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens, special_tokens
from meddiff.evaluation.gain import Gains
from meddiff.evaluation.samples import GroundingSample, Pixels, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import contrast_to_noise_ratio, grounding_gain, resize_maps
from meddiff.metrics.intervals import mean_interval
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

#: (image, label of the word, label of the finding it is scored on) -> CNR of (word, end token)
CrossTable = dict[tuple[str, str, str], tuple[float, float]]


def naming_samples(model: LatentDiffusion, split: LatentShardsDataset) -> tuple[list[GroundingSample], int]:
    """The phrases that name their finding by a query word, and how many do not."""
    tokenizer = model.text_encoder.tokenizer
    chosen, _ = grounding_samples(split, list(QUERY_WORDS))
    named = [one for one in chosen if not query_tokens(tokenizer, one.phrase, QUERY_WORDS[one.label]).is_fallback]
    return named, len(chosen) - len(named)


def cross_table(
    model: LatentDiffusion,
    split: LatentShardsDataset,
    samples: Sequence[GroundingSample],
    timesteps: Sequence[int],
    on_progress: Callable[[int], object] | None = None,
    gains: Gains | None = None,
) -> CrossTable:
    """CNR of every word's map on every finding of its image, by exact masks.

    Args:
        gains: takes every word's scores on its own mask and on that of another finding which was asked for, too: so what a
            map that answers both alike gains on the one it loses on the other.
    """
    asked = {(one.key, one.label) for one in samples}
    tokenizer = model.text_encoder.tokenizer

    def groups(one: GroundingSample) -> Tensor:
        words = query_tokens(tokenizer, one.phrase, QUERY_WORDS[one.label]).weights
        return torch.stack([words, special_tokens(tokenizer, one.phrase)["end"]])  # (2, L)

    items = [
        GroundingItem(one.key, evaluation_latents(split, one.index, 0), one.phrase, groups(one)) for one in samples
    ]
    found: CrossTable = {}
    with undisturbed(model):
        maps = grounding_pass(model, items, timesteps, on_progress=on_progress)
        for i, heat in mean_over_timesteps(maps, len(timesteps)):  # heat (2, h, w)
            sample = samples[i]
            full = resize_maps(heat, sample.size)  # (2, H, W)
            masks = split.masks(sample.index)
            if gains is not None:
                gain_over_others(sample, full[0], masks, asked, gains)
            for name, mask in masks.items():
                if name in QUERY_WORDS:
                    scores = contrast_to_noise_ratio(full, torch.from_numpy(mask).expand(2, -1, -1))
                    found[sample.key, sample.label, name] = (float(scores[0]), float(scores[1]))
    return found


def gain_over_others(
    sample: GroundingSample,
    heat: Tensor,
    masks: Mapping[str, Pixels],
    asked: Collection[tuple[str, str]],
    gains: Gains,
) -> None:
    """Score a word's map (H, W) on its own mask and on that of each other finding of the image that is asked for, too.

    Args:
        masks: name -> exact mask (H, W).
        asked: (key, label) of everything that is asked.
    """
    for name, mask in masks.items():
        if name != sample.label and (sample.key, name) in asked:
            own, other = (torch.from_numpy(one)[None] for one in (masks[sample.label], mask))
            pair = grounding_gain(heat[None], own, control_places=other)
            gains.add("other_finding", sample, float(pair.asked), float(pair.control))


def compare(table: CrossTable) -> dict[str, float]:
    """Share of pairs with the own finding first, its interval, the mean CNRs, and the end token's share."""
    pairs = [(key, label, name) for key, label, name in table if label != name]
    own = np.array([table[key, label, label] for key, label, _ in pairs])  # (N, 2)
    other = np.array([table[pair] for pair in pairs])
    first = (own > other).astype(float)
    low, high = mean_interval(first[None, :, 0], [key for key, _, _ in pairs], share=True)
    return {
        "pairs": float(len(pairs)),
        "first": float(first[:, 0].mean()),
        "low": low,
        "high": high,
        "own": float(own[:, 0].mean()),
        "other": float(other[:, 0].mean()),
        "eos_first": float(first[:, 1].mean()),
    }


def by_class(table: CrossTable, labels: Sequence[str]) -> NDArray[np.float64]:
    """Mean CNR of the words of each class (rows) on the findings of each class (columns), (K, K)."""
    means = np.full((len(labels), len(labels)), np.nan)
    for row, word in enumerate(labels):
        for column, finding in enumerate(labels):
            values = [cnr for (_, one, other), (cnr, _) in table.items() if (one, other) == (word, finding)]
            if values:
                means[row, column] = np.mean(values)
    return means


def own_part(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The diagonal without what its row (how sharp the word is) and its column (how salient the finding is) explain, (K,).

    Example:
        >>> own_part(np.array([[3.0, 1.0], [2.0, 2.0]])).tolist()
        [0.5, 0.5]
    """
    rest = means - np.nanmean(means, axis=0) - np.nanmean(means, axis=1)[:, None] + np.nanmean(means)
    return np.diag(rest)
