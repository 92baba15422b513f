"""Attention and its gradient, in the U-Net and in the text tower, reduced to (gradient x attention)^+ averaged over heads.

A U-Net of Stable Diffusion's size has 4,096 x 4,096 probabilities a head: they are reduced inside the backward pass, head by
head, as soon as their gradient is there. Fused attention shows neither, so processors and towers compute step by step while a
context is open, and are as they were afterwards. Source: Chefer et al. 2021 (the product); the rest own.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from meddiff.attribution.eager_attention import Seen, attend
from meddiff.attribution.plain_unet import layer_by_layer

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention


def weighted_by_gradient(probabilities: Tensor, slopes: Tensor) -> Tensor:
    """mean over heads of (dy/dA * A)^+: (B, heads, N, L) each -> (B, N, L) float32."""
    total = torch.zeros_like(probabilities[:, 0], dtype=torch.float32)
    for head in range(probabilities.shape[1]):  # one at a time: a head may be 64 MiB
        total += (slopes[:, head].float() * probabilities[:, head].float()).clamp_(min=0)
    return total / probabilities.shape[1]


@dataclass
class Layer:
    """One attention layer of a pass.

    Attributes:
        name: path of the module.
        cross: whether it attends to the text; else to its own pixels.
        weighted: (B, N, L) or (B, N, N) float32, known after the backward pass; None where no gradient came by.
    """

    name: str
    cross: bool
    weighted: Tensor | None = None


class _Reduced(torch.autograd.Function):
    """The identity, whose backward pass leaves the reduced product in its layer. No hook: one that knows its own tensor is a
    circle that is never freed."""

    @staticmethod
    def forward(ctx: FunctionCtx, probabilities: Tensor, layer: Layer) -> Tensor:
        ctx.save_for_backward(probabilities)
        ctx.layer = layer  # type: ignore[attr-defined]
        return probabilities.view_as(probabilities)

    @staticmethod
    def backward(ctx: FunctionCtx, slopes: Tensor) -> tuple[Tensor, None]:
        (probabilities,) = ctx.saved_tensors  # type: ignore[attr-defined]
        ctx.layer.weighted = weighted_by_gradient(probabilities, slopes)  # type: ignore[attr-defined]
        return slopes, None


@dataclass
class Captured:
    """The attention layers of the last pass, in the order in which they ran."""

    layers: list[Layer] = field(default_factory=list)


class _Processor:
    def __init__(self, captured: Captured, name: str) -> None:
        self.captured, self.name = captured, name

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, N, C), encoder_hidden_states (B, L, D), attention_mask (B, 1, L), added -> (B, N, C)."""
        layer = Layer(self.name, encoder_hidden_states is not None)
        self.captured.layers.append(layer)
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def look(seen: Seen) -> Tensor:
            probabilities: Tensor = _Reduced.apply(seen.probabilities, layer)
            return probabilities

        return attend(attn, hidden_states, states, attention_mask, look)


@contextmanager
def attention_gradients(unet: "UNet2DConditionModel") -> Iterator[Captured]:
    """Context in which every attention layer of a U-Net, self and cross, leaves its reduced product in the backward pass."""
    captured = Captured()
    before: dict[str, object] = dict(unet.attn_processors)
    ours: dict[str, object] = {name: _Processor(captured, name.removesuffix(".processor")) for name in before}
    install: Callable[[dict[str, object]], object] = unet.set_attn_processor
    with ExitStack() as stack:
        stack.enter_context(layer_by_layer(unet))
        stack.callback(lambda: install(dict(before)))  # what is given is emptied
        install(ours)
        yield captured
