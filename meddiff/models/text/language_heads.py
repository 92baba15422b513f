"""What a text tower is asked while it learns a language: heads on its hidden states, and where in a text they are read.

Source: own. A causal tower sees at a word what stands before it, so a side that follows its finding cannot be read there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from meddiff.models.text.tokens import TextTokenizer

#: What is asked at the tokens of a word that names a finding; the last two only of one that is not denied.
SIDES = ("", "left", "right", "bilateral")
SEVERITIES = ("mild", "moderate", "severe")
#: A target that is not asked for.
UNASKED = -100


@dataclass(frozen=True)
class Named:
    """A name in a text and what it stands for, as numbers; :data:`UNASKED` where a question makes no sense.

    Attributes:
        start, stop: its characters.
        finding: its class.
        denied: 1 where the text denies it.
        side, severity: places in :data:`SIDES` and :data:`SEVERITIES`.
    """

    start: int
    stop: int
    finding: int
    denied: int
    side: int
    severity: int


@dataclass(frozen=True)
class Text:
    """One text and what it names."""

    key: str
    caption: str
    named: tuple[Named, ...]


class TextBatch(TypedDict):
    """The texts of a batch and, of each, what it names."""

    key: list[str]
    caption: list[str]
    named: list[tuple[Named, ...]]


@dataclass(frozen=True)
class Questions:
    """Where the states of a batch are read, and what should be found there.

    Attributes:
        places: (M,) token positions, counted through the batch (row x L + position, L tokens a row).
        targets: (M, 4) finding, denied, side, severity.
        ends: (B,) positions of the end tokens, counted likewise.
        labels: (B, K) float 0/1, the findings that a text asserts.
    """

    places: Tensor
    targets: Tensor
    ends: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Questions":
        return Questions(*(one.to(device) for one in (self.places, self.targets, self.ends, self.labels)))


def questions(
    tokenizer: TextTokenizer, texts: Sequence[str], named: Sequence[Sequence[Named]], classes: int, length: int
) -> Questions:
    """The questions that names in texts ask.

    Args:
        named: of each text.
        classes: number of findings.
        length: tokens of a row of the batch, those of its longest text at least.
    """
    places, targets, ends = [], [], []
    labels = torch.zeros(len(texts), classes)
    for row, (text, some) in enumerate(zip(texts, named, strict=True)):
        begin = row * length
        ends.append(begin + tokenizer.length(text) - 1)
        for one in some:
            span = tokenizer.span(text, one.start, one.stop)
            places += [begin + position for position in span]
            targets += [[one.finding, one.denied, one.side, one.severity]] * len(span)
            if one.denied == 0:
                labels[row, one.finding] = 1.0
    return Questions(
        torch.tensor(places, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long).reshape(-1, 4),
        torch.tensor(ends),
        labels,
    )


class LanguageHeads(nn.Module):
    """Linear readings of hidden states.

    Args:
        width: channels of the states.
        classes: number of findings.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.finding = nn.Linear(width, classes)
        self.denied = nn.Linear(width, 2)
        self.side = nn.Linear(width, len(SIDES))
        self.severity = nn.Linear(width, len(SEVERITIES))
        self.labels = nn.Linear(width, classes)
        self.next_token = nn.Linear(width, width)

    def at_names(self, states: Tensor) -> list[Tensor]:
        """States (M, D) at names -> logits of finding (M, K), denied (M, 2), side (M, 4) and severity (M, 3)."""
        return [head(states) for head in (self.finding, self.denied, self.side, self.severity)]

    def next_tokens(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """States (N, D) -> logits (N, V) of the token that follows, over the embeddings (V, D) of a vocabulary."""
        logits: Tensor = self.next_token(states) @ embeddings.T
        return logits
