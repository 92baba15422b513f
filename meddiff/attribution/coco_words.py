"""The classes of MS-COCO in captions: by which tokens they are named. Pure functions on text.

The classes and the words that ask for them: :mod:`meddiff.common.coco_classes`.
Source: `paper` as the published code does it, spec/tradeoff.md section 1.7; `standard` own.
"""

import re

import torch

from meddiff.attribution.words import Preset, Query, query_tokens
from meddiff.common.coco_classes import class_words, mentions
from meddiff.models.text.tokens import TextTokenizer


def class_tokens(tokenizer: TextTokenizer, caption: str, label: str, preset: Preset = "standard") -> Query:
    """Which tokens of ``caption`` answer for a class; all words of the caption where none does.

    Args:
        tokenizer: of the model's text tower.
        preset: "standard" averages the words of each mention ("traffic light" has two), then the mentions; "paper"
            looks for the name inside single blank-separated words, so that no class of two words is ever found.

    Raises:
        UserError: no class of MS-COCO.
    """
    class_words(label)  # refuses an unknown class
    if preset == "paper":
        return query_tokens(tokenizer, caption, (label,), preset)
    aligned = tokenizer.words(caption)
    read = " ".join(word.text for word in aligned)  # the caption as the tokenizer reads it
    found_at = [(start, stop) for name, start, stop in mentions(read) if name == label]
    if not found_at:
        return query_tokens(tokenizer, caption, ())
    places = [match.span() for match in re.finditer(r"\S+", read)]
    words = list(zip(aligned, places, strict=True))
    hits = [[word for word, (begin, end) in words if begin < stop and start < end] for start, stop in found_at]
    spans = [[tokenizer.kept(word) for word in hit] for hit in hits]
    kept = [whole for some in spans if (whole := [(begin, end) for begin, end in some if end > begin])]
    weights = torch.zeros(tokenizer.max_length)
    for whole in kept:
        for begin, end in whole:
            weights[begin:end] += 1.0 / (end - begin) / len(whole) / len(kept)
    found = [word for hit in hits for word in hit]
    cut = tuple(word.text for word in found if word.stop > tokenizer.room)
    return Query(weights, tuple(word.text for word in found), cut)
