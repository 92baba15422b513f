"""What a latent diffusion model asks of a text tower, and what comes out of one. Source: own."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from meddiff.models.text.tokens import TextTokenizer
from meddiff.models.weights.sources import Config


@dataclass(frozen=True)
class Conditioning:
    """Hidden states of texts, and which of them the U-Net may attend to.

    Attributes:
        states: (B, L, D).
        mask: (B, L) bool, the tokens that are no padding; None lets the U-Net attend to all of them.
    """

    states: Tensor
    mask: Tensor | None = None

    def take(self, places: Tensor) -> Self:
        """The texts at ``places`` (N,), as often as they are named."""
        return type(self)(self.states[places], None if self.mask is None else self.mask[places])

    def expand(self, number: int) -> Self:
        """One text as if it were ``number``."""
        mask = None if self.mask is None else self.mask.expand(number, -1)
        return type(self)(self.states.expand(number, -1, -1), mask)

    def before(self, other: Self) -> Self:
        """These texts, then the ``other`` ones."""
        masks = None if self.mask is None or other.mask is None else torch.cat([self.mask, other.mask])
        return type(self)(torch.cat([self.states, other.states]), masks)

    def arguments(self) -> dict[str, Tensor | None]:
        """As diffusers' U-Net takes them."""
        return {"encoder_hidden_states": self.states, "encoder_attention_mask": self.mask}


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
