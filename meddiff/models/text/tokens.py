"""What a text is to a text tower: token ids, special ones among them, and which of them belong to which word. Source: own."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Word:
    """A blank-separated word of a text and its token positions ``start`` to ``stop`` - 1, special tokens counted."""

    text: str
    start: int
    stop: int


class TextTokenizer(ABC):
    """The vocabulary of a text tower, its length, its special tokens, and the alignment of its pieces with words.

    Attributes:
        max_length: tokens of a text, special ones included; longer texts are cut, shorter ones padded.
        pad_id: what a text is padded with.
        starts: special tokens before a text (1; T5 has none).
        names: what tables call the special tokens before and behind a text.
    """

    max_length: int
    pad_id: int
    starts: int
    names: tuple[str, str]

    @abstractmethod
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text`` with its special tokens, not cut, not padded. The last one ends the text."""

    @abstractmethod
    def words(self, text: str) -> tuple[Word, ...]:
        """The words of ``text`` as the tokenizer reads it, in order, each with its positions in :meth:`ids`."""

    @property
    def room(self) -> int:
        """The first position that no piece of a text can have: the last one always belongs to the end token."""
        return self.max_length - 1

    @property
    def end_id(self) -> int:
        """The token that ends every text."""
        return self.ids("")[-1]

    def kept(self, word: Word) -> tuple[int, int]:
        """The positions of a word that ``max_length`` leaves."""
        return min(word.start, self.room), min(word.stop, self.room)

    def span(self, text: str, start: int, stop: int) -> range:
        """Token positions, as far as they are kept, of the words that characters ``start`` to ``stop`` - 1 touch.

        Punctuation that is glued to a word belongs to it, as in a word's attention map. Empty where the words were cut off, or
        where the tokenizer reads other words than are written.
        """
        words, written = self.words(text), [match.span() for match in re.finditer(r"\S+", text)]
        if len(written) != len(words):
            return range(0)
        touched = [word for word, (first, last) in zip(words, written, strict=True) if first < stop and last > start]
        return range(self.kept(touched[0])[0], self.kept(touched[-1])[1]) if touched else range(0)

    def length(self, text: str) -> int:
        """Tokens of a text after cutting, without padding."""
        return min(len(self.ids(text)), self.max_length)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Token ids padded behind the end token.

        Returns:
            (B, L) int64 with L = ``max_length``, and how many texts were too long; those keep their first L - 1 tokens and
            the end token.
        """
        tokens = torch.full((len(texts), self.max_length), self.pad_id, dtype=torch.long)
        truncated = 0
        for row, text in enumerate(texts):
            ids = self.ids(text)
            if len(ids) > self.max_length:
                truncated += 1
                ids = (*ids[: self.room], ids[-1])
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens, truncated

    def mask(self, tokens: Tensor) -> Tensor:
        """Which tokens (B, L) belong to their text, bool (B, L): all up to the first end token, which may pad it too."""
        ends = tokens == self.end_id
        return ends.cumsum(dim=1) - ends.long() == 0
