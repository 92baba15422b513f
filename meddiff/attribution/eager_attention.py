"""Attention of a diffusers U-Net computed step by step, with everything in sight. Source: diffusers (the same formula)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


class Seen(NamedTuple):
    """What one attention layer computes on its way.

    Attributes:
        query: (B, heads, N, c).
        scores: (B, heads, N, L) float32, scaled, with the mask of padding added.
        probabilities: (B, heads, N, L) float32, their softmax.
        value: (B, heads, L, c).
    """

    query: Tensor
    scores: Tensor
    probabilities: Tensor
    value: Tensor


def split_heads(attn: "Attention", x: Tensor) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def attend(
    attn: "Attention",
    hidden_states: Tensor,
    states: Tensor,
    attention_mask: Tensor | None,
    look: Callable[[Seen], Tensor],
) -> Tensor:
    """Attention as diffusers computes it, with the probabilities in float32 and in sight.

    Args:
        hidden_states: (B, N, C), of the pixels.
        states: (B, L, D), what they attend to: tokens of a text, or the pixels themselves.
        attention_mask: (B, 1, L), added.
        look: takes what is seen and gives the probabilities (B, heads, N, L) that are used.

    Returns:
        (B, N, C).

    Raises:
        RuntimeError: a layer that this was not written for.
    """
    odd_mask = attention_mask is not None and (attention_mask.ndim != 3 or attention_mask.shape[1] != 1)
    if odd_mask or hidden_states.ndim != 3:
        raise RuntimeError(
            "An attention layer of a kind that cannot be looked into: its input or its mask is of another form."
        )
    query = split_heads(attn, attn.to_q(hidden_states))
    key, value = split_heads(attn, attn.to_k(states)), split_heads(attn, attn.to_v(states))
    with torch.autocast(query.device.type, enabled=False):  # the paper's maps are float32 under fp16 as well
        scores = query.float() @ key.float().transpose(-1, -2) * attn.scale  # (B, heads, N, L)
        if attention_mask is not None:  # of padding: diffusers adds -10000 where nothing is to be attended
            scores = scores + attention_mask.float().unsqueeze(1)
        probabilities = scores.softmax(dim=-1)
    probabilities = look(Seen(query, scores, probabilities, value))
    mixed = (probabilities.to(value.dtype) @ value).transpose(1, 2).flatten(2)  # (B, N, C)
    projected: Tensor = attn.to_out[1](attn.to_out[0](mixed))
    return (projected + hidden_states if attn.residual_connection else projected) / attn.rescale_output_factor
