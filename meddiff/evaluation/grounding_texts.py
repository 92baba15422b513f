"""The texts that are grounded, and the groups of their tokens. Source: spec/tradeoff.md, sections 5 and 6."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.naming import names_class
from meddiff.attribution.words import query_tokens, special_tokens
from meddiff.evaluation.gain import Elsewhere
from meddiff.evaluation.samples import GroundingSample
from meddiff.models.text.tokens import TextTokenizer
from meddiff.shards.dataset import LatentShardsDataset

#: Rows of the groups matrix before those of the single words; the first two are all that a short measurement takes.
STANDARD, EOS, PAPER, SOS = range(4)


@dataclass
class Item:
    """One text about one image, and the rows of its groups matrix."""

    sample: GroundingSample
    kind: str  # "phrase" or "impression"
    groups: Tensor  # (K, L)
    names: list[tuple[str, str]] = field(default_factory=list)  # (word, variant) of row 4 onwards
    elsewhere: Elsewhere = field(default_factory=dict)  # where else the query words' map is scored

    @property
    def address(self) -> str:
        """Name of the item in the ledger."""
        return "|".join((self.kind, self.sample.key, self.sample.label, self.sample.phrase))


def impressions(
    split: LatentShardsDataset, samples: Sequence[GroundingSample], queries: dict[str, Sequence[str]]
) -> list[GroundingSample]:
    """The impressions that name a class of ``samples``, each with all boxes of that class in its image (Table 7)."""
    boxes: dict[tuple[int, str], list[NDArray[np.float64]]] = {}
    first: dict[tuple[int, str], GroundingSample] = {}
    for sample in samples:
        place = (sample.index, sample.label)
        boxes.setdefault(place, []).append(sample.boxes)
        first.setdefault(place, sample)
    found = []
    for place, sample in first.items():
        text = split.metadata(sample.index)["impression"]
        if names_class(text, sample.label, queries[sample.label]):
            merged = np.unique(np.concatenate(boxes[place]), axis=0)
            found.append(GroundingSample(sample.index, sample.key, sample.label, text, merged, sample.size))
    return found


def text_item(
    tokenizer: TextTokenizer, sample: GroundingSample, queries: dict[str, Sequence[str]], kind: str, full: bool
) -> Item:
    """The groups of a text: its query words, the end token; when full also the paper's way of counting query words, the
    start token and (phrases) word by word."""
    text, words = sample.phrase, queries[sample.label]
    special = special_tokens(tokenizer, text)
    standard = query_tokens(tokenizer, text, words).weights
    rows = [standard, special["end"]]
    names: list[tuple[str, str]] = []
    if full:
        rows += [query_tokens(tokenizer, text, words, "paper").weights, special["start"]]
        for word in tokenizer.words(text) if kind == "phrase" else ():
            start, stop = tokenizer.kept(word)
            for variant, end in (("first", start + 1), ("all", stop)):
                weights = torch.zeros(len(standard))
                if stop > start:
                    weights[start:end] = 1.0 / (end - start)
                rows.append(weights)
                names.append((word.text, variant))
    return Item(sample, kind, torch.stack(rows), names)
