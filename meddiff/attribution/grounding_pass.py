"""The grounding pass: real latents noised at many timesteps, one forward each, attention of the words averaged.

Nothing is sampled: the published procedure overwrites the state before every step with a fresh noising of the real
latent, so its steps are independent and all (image, timestep) pairs run as one stream of batches, without guidance and
without decoding. Source: spec/tradeoff.md sections 0 and 5; batching own (design decisions 1 and 2).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from meddiff.attribution.recorder import CrossAttentionRecorder, LayerReducer
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion


@dataclass
class GroundingItem:
    """One text about one image.

    Attributes:
        key: of the image; its noise hangs on (seed, key, timestep).
        latents: (C, h, w), scaled.
        text: the prompt.
        groups: (K, L) weights over tokens, one row a map.
    """

    key: str
    latents: Tensor
    text: str
    groups: Tensor


def paper_timesteps(number: int = 40) -> list[int]:
    """``number`` timesteps spread over the paper's range 781, 761, ..., 1 (all 40 of them by default).

    Raises:
        UserError: not between 1 and 40.
    """
    if not 1 <= number <= 40:
        raise UserError(f"The grounding pass takes between 1 and 40 timesteps, not {number}.")
    # the middles of `number` equal parts of the 40
    places = [(2 * part + 1) * 40 // (2 * number) for part in range(number)]
    return [20 * (39 - place) + 1 for place in places]


def item_noise(seed: int, key: str, timestep: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise of ``shape``, a function of its arguments alone (float32, CPU)."""
    draw = generator(seed, "grounding", key, timestep).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(draw)


class TimestepMap(NamedTuple):
    """Maps of one item at one timestep: (K, h, w) float32 on the CPU, or (L, K, h, w) with a reducer that keeps layers."""

    item: int
    timestep: int
    maps: Tensor


@torch.no_grad()
def grounding_pass(
    model: LatentDiffusion,
    items: Sequence[GroundingItem],
    timesteps: Sequence[int],
    seed: int = 0,
    batch_size: int = 64,
    reducer: LayerReducer | None = None,
    on_progress: Callable[[int], object] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Iterator[TimestepMap]:
    """Maps of every item at every timestep, one forward pass each.

    Args:
        model: in eval mode; each distinct text of a batch is encoded once.
        items: what to ground. Items may differ in their number of groups.
        timesteps: e.g. :func:`paper_timesteps`.
        batch_size: (item, timestep) pairs per forward pass; changes results by rounding only.
        reducer: what becomes of the layers; None takes their mean.
        on_progress: called with the number of forward passes' pairs just done.
        pairs: (number of the item, timestep), where not every item is wanted at every timestep.

    Yields:
        all timesteps of the first item, then all of the second, ...; :func:`mean_over_timesteps` averages them.
    """
    device = model.device
    pairs = [(i, t) for i in range(len(items)) for t in timesteps] if pairs is None else pairs
    with CrossAttentionRecorder(model.unet, reducer) as recorder:
        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            chosen = [items[i] for i, _ in part]
            times = torch.tensor([t for _, t in part], device=device)  # (B,)
            latents = torch.stack([item.latents for item in chosen]).to(device)  # (B, C, h, w)
            noise = torch.stack([item_noise(seed, items[i].key, t, items[i].latents.shape) for i, t in part])
            noisy = model.noise_schedule.add_noise(latents, noise.to(device), times)  # (B, C, h, w)
            texts = list(dict.fromkeys(item.text for item in chosen))
            place = torch.tensor([texts.index(item.text) for item in chosen], device=device)
            text = model.encode_texts(texts).take(place)  # states (B, L, D)
            width = max(len(item.groups) for item in chosen)
            groups = torch.zeros(len(part), width, chosen[0].groups.shape[1])  # (B, K, L), padded with empty rows
            for row, item in enumerate(chosen):
                groups[row, : len(item.groups)] = item.groups
            recorder.groups = groups.to(device)
            model.unet(noisy.to(text.states.dtype), times, **text.arguments())
            maps = recorder.take(latents.shape[-2:]).cpu()  # (B, K, h, w) or (B, L, K, h, w)
            if on_progress is not None:
                on_progress(len(part))
            for (i, t), mine in zip(part, maps, strict=True):
                yield TimestepMap(i, t, mine[..., : len(items[i].groups), :, :])


def mean_over_timesteps(maps: Iterable[TimestepMap], timesteps: int) -> Iterator[tuple[int, Tensor]]:
    """The paper's reducer: (item, mean of its maps (K, h, w)) as soon as all of an item's timesteps are there.

    Args:
        timesteps: how many there are of each item.
    """
    total: Tensor | None = None
    done = 0
    for item, _, mine in maps:
        total = mine if total is None else total + mine
        done += 1
        if done == timesteps:
            yield item, total / timesteps
            total, done = None, 0
