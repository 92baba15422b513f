"""Where attention goes, by layer and timestep, and what each kind of word points at: its finding, or what travels with it.

One grounding pass over the phrases of a split, a map a word and one each for start token, end token and padding. The share of
a token is its attention averaged over heads and pixels; those of all tokens sum to 1. The map of a role is the mean over its
words, scored by CNR on the exact mask of the phrase's finding (the boxes where there is none), on the image's other findings,
on the confounder that travels with this finding in training, and, as the control of that, on confounders that travel with
others. Source: own; maps as Dombrowski et al. 2024, spec/tradeoff.md section 5.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.recorder import EachLayer
from meddiff.common.findings import CONFOUNDERS, FINDINGS
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.samples import GroundingSample, evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.evaluation.word_roles import ROLES, SPECIAL, Piece, pieces
from meddiff.metrics.functional import contrast_to_noise_ratio, resize_maps
from meddiff.metrics.intervals import mean_interval
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.phantoms.options import parse_confounder
from meddiff.shards.dataset import LatentShardsDataset

#: What attention is shared out among: each role by itself, and all words together.
WORDS = "words"
PLACES = (*ROLES, WORDS)
TARGETS = ("finding", "other finding", "confounder", "other confounder")
#: Of a role's map: the mean over timesteps.
ALL = "all"


@dataclass
class Found:
    """What the phrases of a split show of one model.

    Attributes:
        shares: (place, layer, timestep) -> a value a phrase.
        cnr: (role, target, timestep or :data:`ALL`) -> (image, CNR) of each phrase with such a target.
        words: (word, target) -> the same, of single words.
        keys: image of each phrase.
    """

    shares: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)
    cnr: dict[tuple[str, str, str], list[tuple[str, float]]] = field(default_factory=dict)
    words: dict[tuple[str, str], list[tuple[str, float]]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def travelling(split: LatentShardsDataset) -> dict[str, str]:
    """Confounder -> the finding that it travels with in training, as the cohort's manifest says; empty of real cohorts."""
    given = split.manifest.options.get("confounders")
    found = [parse_confounder(str(one)) for one in given] if isinstance(given, list | tuple) else []
    return {name: label for name, label, correlation in found if correlation > 0}


def targets(split: LatentShardsDataset, sample: GroundingSample, ties: Mapping[str, str]) -> dict[str, list[Tensor]]:
    """Target -> masks (H, W) of an image, as seen from one phrase."""
    found: dict[str, list[Tensor]] = {name: [] for name in TARGETS}
    for name, mask in split.masks(sample.index).items():
        if name in CONFOUNDERS:
            kind = "confounder" if ties.get(name) == sample.label else "other confounder"
        elif name in FINDINGS:
            kind = "finding" if name == sample.label else "other finding"
        else:
            continue
        found[kind].append(torch.from_numpy(mask))
    found["finding"] = found["finding"] or [torch.from_numpy(sample.box_mask())]
    return {name: masks for name, masks in found.items() if masks}


def measure_maps(
    model: LatentDiffusion,
    split: LatentShardsDataset,
    samples: Sequence[GroundingSample],
    timesteps: Sequence[int],
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> Found:
    """One pass over ``samples``; noise and posterior hang on (seed, image) as in grounding."""
    tokenizer, ties = model.text_encoder.tokenizer, travelling(split)
    parts = [pieces(tokenizer, one.phrase, one.label) for one in samples]
    items = [
        GroundingItem(
            one.key,
            evaluation_latents(split, one.index, seed),
            one.phrase,
            torch.stack([piece.weights for piece in part]),
        )
        for one, part in zip(samples, parts, strict=True)
    ]
    layers, found = EachLayer(), Found(keys=[one.key for one in samples])
    with undisturbed(model):
        passed = grounding_pass(model, items, timesteps, seed, batch_size, layers, on_progress)
        for i, maps in _by_item(((one.item, one.maps) for one in passed), len(timesteps)):  # maps (T, layers, K, h, w)
            with one_core():
                masks = targets(split, samples[i], ties)
                add_phrase(found, samples[i], parts[i], maps, layers.layers, timesteps, masks)
    return found


def add_phrase(
    found: Found,
    sample: GroundingSample,
    part: Sequence[Piece],
    maps: Tensor,
    layers: Sequence[str],
    timesteps: Sequence[int],
    masks: Mapping[str, Sequence[Tensor]],
) -> None:
    """Take what the maps of one phrase show.

    Args:
        part: the K pieces of the phrase.
        maps: (T, layers, K, h, w), a mean over each piece's tokens.
        masks: target -> masks (H, W), as :func:`targets`.
    """
    _add_shares(found, part, maps, layers, timesteps)
    _add_ratios(found, sample, part, maps.mean(dim=1), masks, timesteps)


def _by_item(maps: Iterator[tuple[int, Tensor]], timesteps: int) -> Iterator[tuple[int, Tensor]]:
    """(item, its maps of all timesteps) as soon as they are there."""
    gathered: list[Tensor] = []
    for item, one in maps:
        gathered.append(one)
        if len(gathered) == timesteps:
            yield item, torch.stack(gathered)
            gathered = []


def _add_shares(
    found: Found, part: Sequence[Piece], maps: Tensor, layers: Sequence[str], timesteps: Sequence[int]
) -> None:
    tokens = torch.tensor([float(piece.tokens) for piece in part])
    held = maps.mean(dim=(-2, -1)) * tokens  # (T, layers, K): a mean over tokens becomes their sum
    for place in PLACES:
        rows = [k for k, piece in enumerate(part) if _is_in(piece, place)]
        for t, line in zip(timesteps, held[..., rows].sum(dim=-1).tolist(), strict=True):
            for layer, value in zip(layers, line, strict=True):
                found.shares.setdefault((place, layer, t), []).append(value)


def _is_in(piece: Piece, place: str) -> bool:
    return piece.role not in SPECIAL if place == WORDS else piece.role == place


def _add_ratios(
    found: Found,
    sample: GroundingSample,
    part: Sequence[Piece],
    maps: Tensor,
    masks: Mapping[str, Sequence[Tensor]],
    timesteps: Sequence[int],
) -> None:
    """CNRs of one phrase's maps (T, K, h, w), the mean over layers."""
    roles = [role for role in ROLES if any(piece.role == role and piece.tokens for piece in part)]
    rows = {role: [k for k, piece in enumerate(part) if piece.role == role and piece.tokens] for role in roles}
    of_roles = torch.stack([maps[:, rows[role]].mean(dim=1) for role in roles])  # (R, T, h, w)
    words = [k for k, piece in enumerate(part) if piece.role not in SPECIAL and piece.tokens]
    moments = torch.cat([of_roles, of_roles.mean(dim=1, keepdim=True)], dim=1)  # (R, T + 1, h, w)
    full = resize_maps(torch.cat([moments.flatten(0, 1), maps[:, words].mean(dim=0)]), sample.size)
    for target, some in masks.items():
        scores = np.stack(
            [contrast_to_noise_ratio(full, mask.expand(len(full), -1, -1)).numpy() for mask in some]
        ).mean(axis=0)  # several masks of a kind count alike
        for place, role in enumerate(roles):
            for t, name in enumerate([*map(str, timesteps), ALL]):
                value = float(scores[place * (len(timesteps) + 1) + t])
                found.cnr.setdefault((role, target, name), []).append((sample.key, value))
        for k, value in zip(words, scores[len(roles) * (len(timesteps) + 1) :], strict=True):
            found.words.setdefault((part[k].word, target), []).append((sample.key, float(value)))


def share_rows(found: Found) -> list[Row]:
    """One row a layer, timestep and place: mean share of attention."""
    return [
        {"layer": layer, "timestep": timestep, "place": place, "share": float(np.mean(values))}
        for (place, layer, timestep), values in found.shares.items()
    ]


def mean_shares(found: Found) -> list[Row]:
    """One row a place: its share over layers and timesteps, with its interval over images."""
    rows: list[Row] = []
    for place in PLACES:
        values = np.mean([line for (where, _, _), line in found.shares.items() if where == place], axis=0)  # (N,)
        rows.append({"place": place, **mean_row(list(zip(found.keys, values.tolist(), strict=True)))})
    return rows


def ratio_rows(found: Found) -> list[Row]:
    """One row a role, target and timestep."""
    order = {role: place for place, role in enumerate(ROLES)}
    cells = sorted(found.cnr.items(), key=lambda one: (one[0][2] != ALL, order[one[0][0]], TARGETS.index(one[0][1])))
    return [
        {"role": role, "target": target, "timestep": timestep, **mean_row(values)}
        for (role, target, timestep), values in cells
    ]


def word_rows(found: Found) -> list[Row]:
    """One row a word and target, the commonest words first."""
    cells = sorted(found.words.items(), key=lambda one: (-len(one[1]), one[0]))
    return [{"word": word, "target": target, **mean_row(values)} for (word, target), values in cells]


def mean_row(cells: Sequence[tuple[str, float]]) -> dict[str, Value]:
    """Mean of what is defined, its 95 % interval over images (None where they are too few), their number."""
    known = [(key, value) for key, value in cells if np.isfinite(value)]
    values: NDArray[np.float64] = np.array([[value for _, value in known]])
    low, high = mean_interval(values, [key for key, _ in known]) if known else (np.nan, np.nan)
    ends = [float(end) if np.isfinite(end) else None for end in (low, high)]
    return {"value": float(values.mean()) if known else None, "low": ends[0], "high": ends[1], "n": len(known)}
