"""Maps of concepts that the prompt does not hold, from the same forward pass: an open vocabulary.

A concept is a phrase that the prompt's own tower encodes by itself. Each cross-attention layer projects its states as it
projects the prompt's, and compares them with the queries of the image, which only the prompt has shaped: concepts look on
and change nothing. Three ways of comparing are known:

- ``append``: the concept is one more key in the prompt's softmax, p_c = sigmoid(s_c - logsumexp_j s_j).
- ``substitute`` (OVAM): the softmax runs over the tokens of the concept's own text in the place of the prompt's.
- ``output`` (ConceptAttention): <o_i, v_c>, the layer's output at pixel i with the concept's value, summed over heads;
  softmax over the concepts. A U-Net has no path from concept to concept, so v_c is what a concept would read that attends to
  itself alone.

Source: spec/evaluation_beyond.md section 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self, get_args

import torch
from torch import Tensor

from meddiff.attribution.eager_attention import Seen, split_heads
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

ConceptMode = Literal["append", "substitute", "output"]


def appended(scores: Tensor, concept_scores: Tensor) -> Tensor:
    """What each concept token would get as one more key: scores (..., N, L), concept_scores (..., N, T) -> (..., N, T).

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
        >>> appended(scores, torch.tensor([[1.5], [0.5]])).squeeze()
        tensor([0.2875, 0.1293])
    """
    return torch.sigmoid(concept_scores - scores.logsumexp(dim=-1, keepdim=True))


def substituted(concept_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """A softmax over a concept's own tokens: (..., N, L) and which of them may be attended to, (L,) -> (..., N, L)."""
    return (concept_scores if mask is None else concept_scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


def by_output(outputs: Tensor, values: Tensor) -> Tensor:
    """Whose value the output of a layer resembles, as shares: outputs (B, heads, N, d), values (heads, C, d) -> (B, N, C)."""
    # heads side by side are one vector, so products are summed over them
    return torch.einsum("bhnd,hcd->bnc", outputs, values).softmax(dim=-1)


@dataclass(frozen=True)
class Concepts:
    """Phrases as the text tower reads each of them by itself.

    Attributes:
        names: the C phrases.
        states: (C, L, D), all tokens of each text.
        weights: (C, L) float32, the mean over the phrase's tokens; 0 on start token, end token and padding.
        mask: (C, L) bool, what the U-Net may attend to; None is all.
        mode: how they are compared.
    """

    names: tuple[str, ...]
    states: Tensor
    weights: Tensor
    mask: Tensor | None
    mode: ConceptMode = "append"

    def projected(self, unet: "UNet2DConditionModel") -> Self:
        """As the cross-attention layers of a U-Net get them: through its own projection of text, where it has one."""
        own = getattr(unet, "encoder_hid_proj", None)
        return self if own is None else replace(self, states=own(self.states))

    @property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """States (T, D) of the phrases' own tokens in a row, and the weights (C, T) that average them."""
        kept = self.weights > 0  # (C, L)
        weights = torch.zeros(len(kept), int(kept.sum()), device=self.weights.device)  # (C, T)
        rows = kept.nonzero()[:, 0]  # (T,)
        weights[rows, torch.arange(len(rows), device=rows.device)] = self.weights[kept]
        return self.states[kept], weights


@torch.no_grad()
def encode_concepts(model: LatentDiffusion, phrases: Sequence[str], mode: ConceptMode = "append") -> Concepts:
    """Phrases by the tower that reads the model's prompts, learnt or frozen.

    Raises:
        UserError: an unknown mode, no phrases, one without a token, one twice, or a single one for ``output``, whose share is
            always 1.
    """
    if mode not in get_args(ConceptMode):
        raise UserError(f"Concepts are compared by {', '.join(get_args(ConceptMode))}, not by {mode!r}.")
    if not phrases or len(set(phrases)) < len(phrases):
        raise UserError("Concepts: give at least one phrase, and each of them once.")
    if mode == "output" and len(phrases) < 2:
        raise UserError("Concepts: output shares pixels out among concepts, and one alone gets all of them: give two.")
    tokenizer = model.text_encoder.tokenizer
    weights = torch.zeros(len(phrases), tokenizer.max_length)
    for row, phrase in enumerate(phrases):
        first, last = tokenizer.starts, tokenizer.length(phrase) - 1  # the end token is the last one
        if last <= first:
            raise UserError(
                f"Concepts: phrase number {row + 1} has no token that the text encoder knows: write a word."
            )
        weights[row, first:last] = 1.0 / (last - first)
    text = model.encode_texts(phrases)
    return Concepts(tuple(phrases), text.states, weights.to(text.states.device), text.mask, mode)


def concept_maps(concepts: Concepts, attn: "Attention", seen: Seen) -> Tensor:
    """The C concepts in one layer of N pixels, averaged over heads and over each phrase's tokens: (B, C, N) float32."""
    if concepts.mode == "substitute":
        return torch.stack([_substituted(concepts, row, attn, seen.query) for row in range(len(concepts.names))], dim=1)
    states, weights = concepts.tokens  # (T, D), (C, T)
    if concepts.mode == "output":
        own = split_heads(attn, attn.to_v(states[None]))[0]  # (heads, T, c)
        with torch.autocast(own.device.type, enabled=False):
            outputs = seen.probabilities @ seen.value.float()  # (B, heads, N, c)
            return by_output(outputs, weights @ own.float()).transpose(1, 2)  # (B, C, N)
    shares = appended(seen.scores, _scores(attn, seen.query, states[None])).mean(dim=1)  # (B, N, T)
    return torch.einsum("ct,bnt->bcn", weights, shares)


def _substituted(concepts: Concepts, row: int, attn: "Attention", query: Tensor) -> Tensor:
    """(B, N): a softmax over all tokens of one concept's text, whose start and end tokens take what fits no word."""
    mask = None if concepts.mask is None else concepts.mask[row]
    shares = substituted(_scores(attn, query, concepts.states[row : row + 1]), mask).mean(dim=1)  # (B, N, L)
    return (shares * concepts.weights[row]).sum(dim=-1)


def _scores(attn: "Attention", query: Tensor, states: Tensor) -> Tensor:
    """Queries (B, heads, N, c) against the keys of states (1, L, D): (B, heads, N, L) float32, scaled."""
    key = split_heads(attn, attn.to_k(states))  # (1, heads, L, c)
    with torch.autocast(key.device.type, enabled=False):
        return query.float() @ key.float().transpose(-1, -2) * attn.scale
