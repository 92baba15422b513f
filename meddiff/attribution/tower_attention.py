"""The attention of a text tower in its graph: CLIP's, and any of transformers that shows its probabilities. Source: own."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from meddiff.attribution.plain_unet import uncompiled
from meddiff.models.text.tower import TextTower
from meddiff.models.text.transformers_tower import TransformersTower

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: open_clip's switch.
CHECKPOINTING = "grad_checkpointing"
#: What is said of a tower that shows none.
NONE_SHOWN = (
    "This text tower ({kind}) shows no attention, so each token stands for itself: what tokens took from one another inside "
    "the tower is not in the relevance."
)


@dataclass
class TowerAttention:
    """Probabilities of a tower's layers in their order, (B, heads, L, L) each, part of the graph of its states."""

    kind: str
    layers: list[Tensor] = field(default_factory=list)

    @property
    def note(self) -> str:
        """Empty, or a sentence that says what is missing."""
        return "" if self.layers else NONE_SHOWN.format(kind=self.kind)


@contextmanager
def tower_attention(tower: TextTower) -> Iterator[TowerAttention]:
    """Context in which a tower computes attention in sight; afterwards it is as before, also after an exception.

    Its states have a graph down to the embeddings of the tokens, frozen or not, where gradients are computed at all.
    """
    found = TowerAttention(type(tower).__name__)
    with ExitStack() as stack:
        stack.enter_context(uncompiled(tower))
        for part in tower.modules():
            if getattr(part, CHECKPOINTING, False):
                # layers that run again in the backward pass would be seen again
                vars(part)[CHECKPOINTING] = False
                stack.callback(vars(part).update, {CHECKPOINTING: True})
            if isinstance(part, nn.Embedding) and part.weight is tower.token_table.weight:
                # with frozen weights nothing else would start a graph
                stack.callback(part.register_forward_hook(_leaf).remove)
        if isinstance(tower, TransformersTower):
            found.kind = str(tower.transformer.config.model_type)
            stack.enter_context(_shown(tower.transformer, found))
        else:
            for part in tower.modules():
                if isinstance(part, nn.MultiheadAttention):
                    stack.enter_context(_eager(part, found))
        yield found


def _leaf(module: nn.Module, given: tuple[object, ...], output: Tensor) -> Tensor:
    return output.detach().requires_grad_()


@contextmanager
def _eager(part: nn.MultiheadAttention, found: TowerAttention) -> Iterator[None]:
    """torch's own layer, computed step by step; one of another form than CLIP's is left alone."""
    plain = (
        part._qkv_same_embed_dim and part.bias_k is None and not part.add_zero_attn and part.in_proj_weight is not None
    )
    if not plain:
        yield
        return

    def forward(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: object
    ) -> tuple[Tensor, None]:
        x = (
            query if part.batch_first else query.transpose(0, 1)
        )  # (B, L, D); a text attends to itself, so all three are one
        projected = nn.functional.linear(x, part.in_proj_weight, part.in_proj_bias)
        q, k, v = (y.unflatten(-1, (part.num_heads, -1)).transpose(1, 2) for y in projected.chunk(3, dim=-1))
        scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, heads, L, L)
        if attn_mask is not None:
            scores = (
                scores.masked_fill(attn_mask, -torch.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask.float()
            )
        probabilities = scores.softmax(dim=-1)
        found.layers.append(probabilities)
        mixed = (probabilities.to(v.dtype) @ v).transpose(1, 2).flatten(2)  # (B, L, D)
        mixed = mixed if part.batch_first else mixed.transpose(0, 1)
        return part.out_proj(mixed), None

    part.__dict__["forward"] = forward
    try:
        yield
    finally:
        del part.__dict__["forward"]


@contextmanager
def _shown(network: "PreTrainedModel", found: TowerAttention) -> Iterator[None]:
    """A network of transformers that is asked for its attention; fused attention does not have it."""
    before: str = network.config._attn_implementation
    takes = inspect.signature(network.forward).parameters
    asks = "output_attentions" in takes or any(one.kind is one.VAR_KEYWORD for one in takes.values())

    def ask(
        module: nn.Module, given: tuple[object, ...], named: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        return given, named | {"output_attentions": True}

    def collect(module: nn.Module, given: tuple[object, ...], output: object) -> None:
        shown = getattr(output, "attentions", None) or ()
        square = [one for one in shown if isinstance(one, Tensor) and one.ndim == 4 and one.shape[-1] == one.shape[-2]]
        found.layers += square if len(square) == len(shown) else []

    change: Callable[[str], object] = network.set_attn_implementation
    with ExitStack() as stack:
        if asks:
            stack.callback(change, before)
            change("eager")
            stack.callback(network.register_forward_pre_hook(ask, with_kwargs=True).remove)
            stack.callback(network.register_forward_hook(collect).remove)
        yield
