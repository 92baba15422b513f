"""Words, their token pieces, and the words that ask for a class: pure functions on text.

Source: spec/tradeoff.md section 5, points 7 to 10 (Dombrowski et al. 2024, phrase grounding).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from meddiff.common.coco_classes import Preset
from meddiff.models.text.encoder import CONTEXT_LENGTH, read_words, token_ids

#: class -> lower-case query words; a word of the text matches when it contains one (the paper's list).
QUERY_WORDS: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("atelectasis", "atelectatic"),
    "Cardiomegaly": ("cardiomegaly", "cardiac"),
    "Consolidation": ("consolidation", "consolidations", "consolidative"),
    "Edema": ("edema",),
    "Lung Opacity": ("opacity", "opacities", "opacification"),
    "Pleural Effusion": ("pleural", "effusion", "effusions"),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax", "pneumothoraces"),
}


@dataclass(frozen=True)
class Word:
    """A blank-separated word of a text and its token positions ``start`` to ``stop`` - 1 (1 is the first after SOS)."""

    text: str
    start: int
    stop: int

    @property
    def kept(self) -> tuple[int, int]:
        """The positions that the context of 77 leaves: the last one always belongs to the end token."""
        return min(self.start, CONTEXT_LENGTH - 1), min(self.stop, CONTEXT_LENGTH - 1)


@lru_cache(maxsize=100_000)
def align_words(text: str) -> tuple[Word, ...]:
    """The words of ``text`` with their token positions in open_clip's tokenisation.

    Words are those of the text as the tokenizer reads it, in their case: where it repairs a text ("eﬀusion" becomes
    "effusion", wrongly decoded umlauts become right ones), a word asked for is found in what the model sees. Pieces are
    counted word by word, as the paper does; glued punctuation belongs to its word.
    """
    words, position = [], 1
    for word, ids in read_words(text):
        words.append(Word(word, position, position + len(ids)))
        position += len(ids)
    return tuple(words)


@dataclass(frozen=True)
class Query:
    """Which tokens answer for a class in a text.

    Attributes:
        weights: (77,) float32, sums to 1: the mean over each matched word's tokens, then over the matches. All zero
            when the context cut every matched word off.
        words: the matched words; empty when no word matched and all words of the text stand in.
        truncated: matched words that lie, wholly or partly, beyond the context of 77 tokens.
    """

    weights: Tensor
    words: tuple[str, ...]
    truncated: tuple[str, ...] = ()

    @property
    def is_fallback(self) -> bool:
        """Whether no word of the text names the class."""
        return not self.words


def query_tokens(text: str, queries: Sequence[str], preset: Preset = "standard") -> Query:
    """Weights over the tokens of ``text`` for the words that contain one of ``queries``.

    Args:
        queries: lower-case query words, e.g. ``QUERY_WORDS["Edema"]``.
        preset: "standard" counts a word once; "paper" once for every query word it contains, so that "effusions"
            weighs twice.
    """
    words = align_words(text)
    hits: list[Word] = []
    for word in words:
        matches = sum(query in word.text.lower() for query in queries)
        hits += [word] * (matches if preset == "paper" else min(matches, 1))
    weights = torch.zeros(CONTEXT_LENGTH)
    if not hits:  # no word names the class: one mean over all tokens of the text
        first, last = (words[0].start, words[-1].kept[1]) if words else (1, 1)
        if last > first:
            weights[first:last] = 1.0 / (last - first)
        return Query(weights, ())
    cut = tuple(word.text for word in hits if word.stop > CONTEXT_LENGTH - 1)
    whole = [word for word in hits if word.kept[1] > word.kept[0]]
    for word in whole:
        start, stop = word.kept
        weights[start:stop] += 1.0 / (stop - start) / len(whole)
    return Query(weights, tuple(word.text for word in hits), cut)


def special_tokens(text: str) -> dict[str, Tensor]:
    """Weights (77,) for the start token, the end token and the padding of ``text`` (never part of a word's map)."""
    length = min(len(token_ids(text)), CONTEXT_LENGTH)
    weights = {name: torch.zeros(CONTEXT_LENGTH) for name in ("sos", "eos", "pad")}
    weights["sos"][0] = 1.0
    weights["eos"][length - 1] = 1.0
    if length < CONTEXT_LENGTH:
        weights["pad"][length:] = 1.0 / (CONTEXT_LENGTH - length)
    return weights
