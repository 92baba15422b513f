"""What a latent diffusion model asks of a text tower, and what comes out of one. Source: own."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from meddiff.models.text.tokens import TextTokenizer
from meddiff.models.weights.sources import Config


@dataclass(frozen=True)
class Conditioning:
    """What a U-Net is told beside noise and timestep: hidden states of texts, which of them it may attend to, and prototypes.

    Attributes:
        states: (B, L, D); with L = 0 the U-Net gets none (a model without text).
        mask: (B, L) bool, the tokens that are no padding; None lets the U-Net attend to all of them.
        activations: (B, m) of prototypes, which the U-Net takes through its time embedding; None where it has no place for
            them.
    """

    states: Tensor
    mask: Tensor | None = None
    activations: Tensor | None = None

    def take(self, places: Tensor) -> Self:
        """The texts at ``places`` (N,), as often as they are named."""
        return self._each(lambda rows: rows[places])

    def expand(self, number: int) -> Self:
        """One text as if it were ``number``."""
        return self._each(lambda rows: rows.expand(number, *rows.shape[1:]))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        rest = (None if rows is None else change(rows) for rows in (self.mask, self.activations))
        return type(self)(change(self.states), *rest)

    def before(self, other: Self) -> Self:
        """These texts, then the ``other`` ones; the shorter ones get tokens that nothing attends to."""
        length = max(self.states.shape[1], other.states.shape[1])
        mine, others = self._padded(length), other._padded(length)
        masks = None
        if mine.mask is not None and others.mask is not None:
            masks = torch.cat([mine.mask, others.mask])
        elif mine.mask is not None or others.mask is not None:
            masks = torch.cat([mine._full_mask(), others._full_mask()])
        activations = None
        if mine.activations is not None and others.activations is not None:
            activations = torch.cat([mine.activations, others.activations])
        assert (mine.activations is None) == (others.activations is None), "both are of one model"
        return type(self)(torch.cat([mine.states, others.states]), masks, activations)

    def followed_by(self, tokens: Tensor, mask: Tensor | None = None) -> Self:
        """The same texts with tokens (B, N, D) behind them; mask (B, N), None if all of them may be attended to."""
        states = torch.cat([self.states, tokens.to(self.states.dtype)], dim=1)
        if mask is None and self.mask is None:
            return replace(self, states=states)
        own = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        return replace(self, states=states, mask=torch.cat([self._full_mask(), own], dim=1))

    def _padded(self, length: int) -> Self:
        missing = length - self.states.shape[1]
        if missing == 0:
            return self
        rows, _, width = self.states.shape
        nothing = self.states.new_zeros(rows, missing, width)
        return self.followed_by(nothing, nothing.new_zeros(rows, missing, dtype=torch.bool))

    def _full_mask(self) -> Tensor:
        return self.states.new_ones(self.states.shape[:2], dtype=torch.bool) if self.mask is None else self.mask

    def arguments(self) -> dict[str, Tensor | None]:
        """As diffusers' U-Net takes them."""
        spoken = self.states.shape[1] > 0
        found = {
            "encoder_hidden_states": self.states if spoken else None,
            "encoder_attention_mask": self.mask if spoken else None,
        }
        if self.activations is not None:
            # a projection of numbers is what diffusers calls an embedding of classes
            found["class_labels"] = self.activations.to(self.states.dtype)
        return found


class TextTower(nn.Module):
    """Token ids in, hidden states out; it owns its tokenizer, and with it its length, special tokens and word alignment.

    Attributes:
        tokenizer: of its texts.
        width: channels of the hidden states.
        config: what :func:`meddiff.models.text.build.build_text_encoder` makes the same tower of, freshly drawn; JSON values.
        attention_mask: hand the U-Net a mask, so that it attends to no padding.
    """

    tokenizer: TextTokenizer
    width: int
    config: Config
    attention_mask: bool

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) -> hidden states (B, L, width)."""

    @property
    @abstractmethod
    def token_table(self) -> nn.Embedding:
        """The embeddings of the vocabulary."""

    @abstractmethod
    def checkpoint_activations(self) -> None:
        """From now on a training computes activations again in the backward pass instead of keeping them."""

    @abstractmethod
    def save(self, folder: Path, half: bool = False) -> None:
        """Write ``folder/text_encoder`` and ``folder/tokenizer`` as transformers does; ``half`` rounds to float16."""

    def mask(self, tokens: Tensor) -> Tensor | None:
        """What the U-Net gets: (B, L) bool, or None."""
        return self.tokenizer.mask(tokens) if self.attention_mask else None
