"""The text tower of a model that reads no text: nothing in, nothing out, so that nobody has to ask whether there is one.

Source: own.
"""

from pathlib import Path

from torch import Tensor, nn, zeros

from meddiff.common.errors import UserError
from meddiff.models.text.tokens import TextTokenizer, Word
from meddiff.models.text.tower import TextTower


class NoTokens(TextTokenizer):
    """Reads no text: every text has no tokens, none is too long."""

    max_length = 0
    pad_id = 0
    starts = 0
    names = ("", "")

    def ids(self, text: str) -> tuple[int, ...]:
        return ()

    def words(self, text: str) -> tuple[Word, ...]:
        return ()

    def mask(self, tokens: Tensor) -> Tensor:
        return tokens.bool()


class NoText(TextTower):
    """Any text becomes states of no tokens, (B, 0, width); a U-Net is then handed no states at all.

    Args:
        no_text: the width that a U-Net's configuration names, which means nothing here.
    """

    def __init__(self, no_text: int) -> None:
        super().__init__()
        self.tokenizer: TextTokenizer = NoTokens()
        self.width, self.config, self.attention_mask = no_text, {"no_text": no_text}, False
        # follows the model to its device and type; no checkpoint holds it
        self.register_buffer("place", zeros(0), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 0) -> (B, 0, width)."""
        place = self.get_buffer("place")
        return place.new_zeros(len(tokens), 0, self.width)

    @property
    def token_table(self) -> nn.Embedding:
        """There is none.

        Raises:
            UserError: always.
        """
        raise UserError("This model reads no text: there is no table of tokens to look into.")

    def checkpoint_activations(self) -> None:
        """There are none."""

    def save(self, folder: Path, half: bool = False) -> None:
        """There is nothing to write.

        Raises:
            UserError: always.
        """
        raise UserError("This model reads no text: there is no text encoder to write.")
