"""The published localisation procedure, re-implemented from facts (spec/tradeoff.md sections 0, 5, 10 and 11); own code.

It is what `attribution.grounding_pass` is measured and tested against, so it shares nothing with it but the list of
query words: 50 DDIM steps one after the other whose results are thrown away, every attention layer with its whole matrix
in sight, the maps of all tokens, layers and steps kept, two decodes nobody looks at, and words averaged on the host.
The source of noise is an argument; the published code seeds it with the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

    from meddiff.models.backbones import Vae

#: (step's timestep, latents (B, C, h, w)) -> noise of that shape.
Noise = Callable[[int, Tensor], Tensor]

STEPS, AVERAGED = 50, 40


@dataclass(frozen=True)
class Parts:
    """Causes of the published procedure's cost that change no map; the benchmark switches them off one by one."""

    decodes: bool = True
    first_steps: bool = True
    explicit_self_attention: bool = True


@dataclass(frozen=True)
class Localised:
    """What the procedure returns.

    Attributes:
        maps: (B, h, w), one per text, on the host.
        kept_bytes: of all tensors that hold maps while the stack of the steps is put together, its peak.
    """

    maps: Tensor
    kept_bytes: int


class ExplicitAttention:
    """One processor for self- and cross-attention; with a ``store``, the mean over heads goes there, (B, 1, N, 77)."""

    def __init__(self, store: list[Tensor] | None = None) -> None:
        self.store = store

    def __call__(
        self, attn: "Attention", hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, heads, N, C / heads)

        query, key, value = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        with torch.autocast(query.device.type, enabled=False):
            similarity = torch.einsum("bhic,bhjc->bhij", query.float(), key.float()) * attn.scale
            probabilities = similarity.softmax(dim=-1)
        if self.store is not None:
            self.store.append(probabilities.mean(dim=1, keepdim=True))
        mixed = torch.einsum("bhij,bhjc->bhic", probabilities.to(value.dtype), value)
        projected: Tensor = attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
        return projected


@torch.no_grad()
def localise(
    unet: "UNet2DConditionModel",
    vae: "Vae",
    encode: Callable[[list[str]], Tensor],
    latents: Tensor,
    texts: list[str],
    queries: Sequence[Sequence[str]],
    alphas_cumprod: Tensor,
    noise: Noise,
    parts: Parts | None = None,
) -> Localised:
    """Maps of the query words of one batch of images.

    Args:
        unet: ``UNet2DConditionModel`` in eval mode; its own processors are put back.
        encode: texts -> hidden states (B, 77, D).
        latents: (B, C, h, w), scaled.
        queries: for every text its lower-case query words.
        parts: what of the procedure to leave out; None leaves out nothing.
    """
    parts = parts or Parts()
    alphas = alphas_cumprod.to(latents).float()
    times = list(range(1, 1000, 1000 // STEPS))[::-1]  # 981, 961, ..., 1
    context = encode(texts)
    if parts.decodes:
        vae.decode(latents / vae.config.scaling_factor)
    here: list[Tensor] = []
    before = dict(unet.attn_processors)
    explicit: dict[str, object] = {}
    for name, processor in before.items():
        is_self = name.endswith("attn1.processor")
        keep = is_self and not parts.explicit_self_attention
        explicit[name] = processor if keep else ExplicitAttention(None if is_self else here)
    unet.set_attn_processor(explicit)
    raw: list[list[Tensor]] = []
    state = torch.randn_like(latents)
    mask = torch.ones_like(latents[:, :1])
    try:
        for place, t in enumerate(times):
            if place < STEPS - AVERAGED and not parts.first_steps:
                continue
            alpha, previous = alphas[t], alphas[times[place + 1]] if place + 1 < STEPS else alphas[0]
            noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise(t, latents)
            state = noised * mask + (1 - mask) * state  # inpainting with everything known: the state is overwritten
            step = torch.full((len(latents),), t, device=latents.device)
            estimate = unet(state.to(context.dtype), step, encoder_hidden_states=context).sample.float()
            clean = (state - (1 - alpha).sqrt() * estimate) / alpha.sqrt()
            state = previous.sqrt() * clean + (1 - previous).sqrt() * estimate
            raw.append(here.copy())
            here.clear()
    finally:
        unet.set_attn_processor(before)
    if parts.decodes:
        vae.decode(state / vae.config.scaling_factor)
    stack, kept_bytes = stack_maps(raw, latents.shape[-2:])
    raw.clear()
    words = [
        _word_map(stack[row].cpu(), text, query) for row, (text, query) in enumerate(zip(texts, queries, strict=True))
    ]
    return Localised(torch.stack(words), kept_bytes)


def stack_maps(raw: list[list[Tensor]], size: tuple[int, int] | torch.Size) -> tuple[Tensor, int]:
    """Maps (B, 1, N, 77) of every step and layer, pixels repeated to ``size``, in one (B, steps, layers, 77, h, w).

    Returns:
        The stack and the bytes alive when it is made: raw maps, the steps' repeated maps, and the stack itself.
    """
    steps = []
    for layers in raw:
        grown = []
        for layer in layers:
            scale = round((size[0] * size[1] / layer.shape[2]) ** 0.5)
            grid = layer.transpose(2, 3).unflatten(3, (size[0] // scale, size[1] // scale))  # (B, 1, 77, rows, columns)
            grown.append(grid.repeat_interleave(scale, dim=3).repeat_interleave(scale, dim=4))
        steps.append(torch.cat(grown, dim=1)[:, None])
    stack = torch.cat(steps, dim=1)
    alive = [stack, *steps, *(layer for layers in raw for layer in layers)]
    return stack, sum(tensor.nbytes for tensor in alive)


def _word_map(stack: Tensor, text: str, queries: Sequence[str]) -> Tensor:
    """(steps, layers, 77, h, w) -> (h, w): the last 40 steps, all layers, the tokens of each word that was hit."""
    import open_clip

    spans, start = [], 1
    for word in text.split(" "):
        tokens = int(open_clip.tokenize([word]).count_nonzero()) - 2
        spans.append((word.lower(), start, start + tokens))
        start += tokens
    hits = [stack[-AVERAGED:, :, begin:end] for query in queries for word, begin, end in spans if query in word]
    if not hits:
        hits = [stack[-AVERAGED:, :, 1:start]]
    return torch.stack([hit.mean(dim=(0, 1, 2)) for hit in hits]).mean(dim=0)
