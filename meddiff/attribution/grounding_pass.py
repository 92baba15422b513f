"""The grounding pass: real latents noised at many timesteps, one forward each, attention of the words averaged.

Nothing is sampled: the published procedure overwrites the state before every step with a fresh noising of the real
latent, so its steps are independent and all (image, timestep) pairs run as one stream of batches, without guidance and
without decoding. Source: spec/tradeoff.md sections 0 and 5; batching own (design decisions 1 and 2).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meddiff.attribution.recorder import CrossAttentionRecorder
from meddiff.common.draws import generator
from meddiff.common.errors import UserError


@dataclass
class GroundingItem:
    """One text about one image.

    Attributes:
        key: of the image; its noise hangs on (seed, key, timestep).
        latents: (C, h, w), scaled.
        text: the prompt.
        groups: (K, 77) weights over tokens, one row a map.
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


@torch.no_grad()
def ground(
    unet: Any,
    encode: Callable[[list[str]], Tensor],
    items: Sequence[GroundingItem],
    alphas_cumprod: Tensor,
    timesteps: Sequence[int],
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Maps of every item, averaged over ``timesteps`` and over all cross-attention layers.

    Args:
        unet: a ``UNet2DConditionModel`` in eval mode.
        encode: texts -> hidden states (B, 77, D) on the U-Net's device; each distinct text of a batch is encoded once.
        items: what to ground. Items may differ in their number of groups.
        alphas_cumprod: (T,).
        timesteps: e.g. :func:`paper_timesteps`.
        batch_size: (item, timestep) pairs per forward pass; changes results by rounding only.
        on_progress: called with the number of forward passes' pairs just done.

    Yields:
        (index of the item, maps (K, h, w) float32 on the CPU), in order.
    """
    device = next(unet.parameters()).device
    alphas = alphas_cumprod.to(device).float()
    pairs = [(i, t) for i in range(len(items)) for t in timesteps]
    sums: dict[int, Tensor] = {}
    done: dict[int, int] = {}
    with CrossAttentionRecorder(unet) as recorder:
        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            chosen = [items[i] for i, _ in part]
            times = torch.tensor([t for _, t in part], device=device)  # (B,)
            latents = torch.stack([item.latents for item in chosen]).to(device)  # (B, C, h, w)
            noise = torch.stack([item_noise(seed, items[i].key, t, items[i].latents.shape) for i, t in part])
            alpha = alphas[times].view(-1, 1, 1, 1)
            noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise.to(device)  # (B, C, h, w)
            texts = list(dict.fromkeys(item.text for item in chosen))
            place = torch.tensor([texts.index(item.text) for item in chosen], device=device)
            text = encode(texts)[place]  # (B, 77, D)
            width = max(len(item.groups) for item in chosen)
            groups = torch.zeros(len(part), width, chosen[0].groups.shape[1])  # (B, K, 77), padded with empty rows
            for row, item in enumerate(chosen):
                groups[row, : len(item.groups)] = item.groups
            recorder.groups = groups.to(device)
            unet(noisy.to(text.dtype), times, encoder_hidden_states=text)
            maps = recorder.take(latents.shape[-2:]).cpu()  # (B, K, h, w)
            for (i, _), mine in zip(part, maps, strict=True):
                mine = mine[: len(items[i].groups)]
                sums[i] = sums[i] + mine if i in sums else mine
                done[i] = done.get(i, 0) + 1
            if on_progress is not None:
                on_progress(len(part))
            for i in [i for i, count in done.items() if count == len(timesteps)]:
                del done[i]
                yield i, sums.pop(i) / len(timesteps)
