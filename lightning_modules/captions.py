"""Captions of a training: which are dropped, and how many are longer than the text tower takes. Source: own."""

from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from meddiff.models.text.tokens import TextTokenizer
from meddiff.shards.batches import LatentBatch

EVERY_CAPTION = "all"


@dataclass
class CaptionCounts:
    """Counts over a whole training; a checkpoint keeps them.

    Attributes:
        seen: captions tokenized.
        truncated: those of them whose ends were cut off.
    """

    seen: int = 0
    truncated: int = 0

    def tokenize(self, tokenizer: TextTokenizer, captions: list[str]) -> Tensor:
        """(B, L) token ids; captions that are too long are cut, counted and warned of."""
        tokens, truncated = tokenizer.tokenize(captions)
        before, self.truncated = self.truncated, self.truncated + truncated
        self.seen += len(captions)
        # At the first one and at every further power of ten: seen, but not once a step.
        if (truncated and len(str(before)) < len(str(self.truncated))) or (truncated and before == 0):
            rank_zero_warn(
                f"{self.truncated} of {self.seen} captions so far are longer than {tokenizer.max_length} tokens; "
                f"their ends are cut off and cannot be learned.",
                category=UserWarning,
            )
        return tokens


def drop_captions(batch: LatentBatch, rate: float, label: str) -> tuple[list[str], list[bool]]:
    """The captions of a batch, some of them empty, and which: a function of each sample's own draw.

    Args:
        rate: of dropping; label: whose captions may be dropped, or :data:`EVERY_CAPTION`.
    """
    dropped = [
        u < rate and (label == EVERY_CAPTION or label in labels)
        for u, labels in zip(batch["dropout_uniform"].tolist(), batch["labels"], strict=True)
    ]
    return ["" if gone else text for gone, text in zip(dropped, batch["caption"], strict=True)], dropped
