"""CLIP's byte-pair vocabulary as open_clip reads texts with it. Source: open_clip; alignment own."""

from functools import lru_cache
from typing import TYPE_CHECKING

from meddiff.models.text.tokens import TextTokenizer, Word

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

#: Tokens of a text that CLIP's towers take.
CONTEXT_LENGTH = 77
#: The end token; Stable Diffusion 1 pads with it, Stable Diffusion 2 with 0.
END_ID = 49407
VOCABULARY = 49408


class ClipTokenizer(TextTokenizer):
    """open_clip's tokenizer.

    Args:
        max_length: tokens of a text, special ones included.
        pad_id: 0 (open_clip, Stable Diffusion 2) or the end token (Stable Diffusion 1).
    """

    starts = 1
    names = ("SOS", "EOS")

    def __init__(self, max_length: int = CONTEXT_LENGTH, pad_id: int = 0) -> None:
        self.max_length, self.pad_id = max_length, pad_id

    @property
    def end_id(self) -> int:
        """The token that ends every text."""
        return END_ID

    def ids(self, text: str) -> tuple[int, ...]:
        """Start token, pieces, end token."""
        return _ids(text)

    def words(self, text: str) -> tuple[Word, ...]:
        """Words are those of the text as the tokenizer reads it, in their case: where it repairs a text ("e\ufb00usion" becomes
        "effusion", wrongly decoded umlauts become right ones), a word asked for is found in what the model sees. Pieces are
        counted word by word, as the paper does; glued punctuation belongs to its word.
        """
        return _words(text)


def clean_text(text: str) -> str:
    """A text as open_clip reads it: encoding errors and HTML entities repaired, blanks single. Source: open_clip (ftfy)."""
    from open_clip.tokenizer import basic_clean, whitespace_clean

    cleaned: str = whitespace_clean(basic_clean(text))
    return cleaned


@lru_cache(maxsize=1)
def _tokenizer() -> "SimpleTokenizer":
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONTEXT_LENGTH)


@lru_cache(maxsize=200_000)
def _ids(text: str) -> tuple[int, ...]:
    tokenizer = _tokenizer()
    return (tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id)


@lru_cache(maxsize=100_000)
def _words(text: str) -> tuple[Word, ...]:
    """Before it looks for pieces, open_clip repairs a text, and a repair may join or part words: "\u00c3 gauche" is read as
    "\u00e0 gauche", a control character vanishes. No piece reaches over a blank of the repaired text, so the ids of its words
    in a row are always ``_ids(text)[1:-1]``.
    """
    tokenizer = _tokenizer()
    words = clean_text(text).split()
    # the tokenizer's own steps after cleaning: cleaning a word by itself again could change it once more
    pieces = [
        [tokenizer.bpe("".join(tokenizer.byte_encoder[byte] for byte in part.encode())) for part in found]
        for found in (tokenizer.pat.findall(word.lower()) for word in words)
    ]
    aligned, position = [], 1
    for word, some in zip(words, pieces, strict=True):
        number = sum(len(part.split(" ")) for part in some)
        aligned.append(Word(word, position, position + number))
        position += number
    return tuple(aligned)
