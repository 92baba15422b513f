"""Words, their token pieces, and the words that ask for a class: pure functions on text.

Source: spec/tradeoff.md section 5, points 7 to 10 (Dombrowski et al. 2024, phrase grounding).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from meddiff.common.coco_classes import Preset
from meddiff.common.errors import UserError
from meddiff.models.text.tokens import TextTokenizer, Word

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
class Query:
    """Which tokens answer for a class in a text.

    Attributes:
        weights: (L,) float32, sums to 1: the mean over each matched word's tokens, then over the matches. All zero
            when every matched word was cut off.
        words: the matched words; empty when no word matched and all words of the text stand in.
        truncated: matched words that lie, wholly or partly, beyond what the tokenizer keeps.
    """

    weights: Tensor
    words: tuple[str, ...]
    truncated: tuple[str, ...] = ()

    @property
    def is_fallback(self) -> bool:
        """Whether no word of the text names the class."""
        return not self.words


def query_tokens(tokenizer: TextTokenizer, text: str, queries: Sequence[str], preset: Preset = "standard") -> Query:
    """Weights over the tokens of ``text`` for the words that contain one of ``queries``.

    Args:
        tokenizer: of the model's text tower.
        queries: lower-case query words, e.g. ``QUERY_WORDS["Edema"]``.
        preset: "standard" counts a word once; "paper" once for every query word it contains, so that "effusions"
            weighs twice.
    """
    words = tokenizer.words(text)
    hits: list[Word] = []
    for word in words:
        matches = sum(query in word.text.lower() for query in queries)
        hits += [word] * (matches if preset == "paper" else min(matches, 1))
    weights = torch.zeros(tokenizer.max_length)
    if not hits:  # no word names the class: one mean over all tokens of the text
        first, last = (words[0].start, tokenizer.kept(words[-1])[1]) if words else (0, 0)
        if last > first:
            weights[first:last] = 1.0 / (last - first)
        return Query(weights, ())
    cut = tuple(word.text for word in hits if word.stop > tokenizer.room)
    spans = [tokenizer.kept(word) for word in hits]
    whole = [(start, stop) for start, stop in spans if stop > start]
    for start, stop in whole:
        weights[start:stop] += 1.0 / (stop - start) / len(whole)
    return Query(weights, tuple(word.text for word in hits), cut)


def special_tokens(tokenizer: TextTokenizer, text: str) -> dict[str, Tensor]:
    """Weights (L,) for the start token, the end token and the padding of ``text`` (never part of a word's map).

    Returns:
        ``start`` (all zero where the tokenizer puts none), ``end`` and ``padding`` (all zero for a text that fills L).

    Raises:
        UserError: a model without text.
    """
    if not tokenizer.max_length:
        raise UserError(
            "This model reads no text, so there are no words to look for in an image: leave out grounding, gallery and what "
            "else goes by words (its prototypes: lightning evaluate prototypes)."
        )
    length, size = tokenizer.length(text), tokenizer.max_length
    weights = {name: torch.zeros(size) for name in ("start", "end", "padding")}
    weights["start"][: tokenizer.starts] = 1.0
    weights["end"][length - 1] = 1.0
    if length < size:
        weights["padding"][length:] = 1.0 / (size - length)
    return weights
