"""Any tokenizer of the tokenizers library (WordPiece, byte-pair, Unigram), words aligned by the offsets of its pieces.

The whole tokenizer is one JSON text, so that a checkpoint carries it. Source: Hugging Face tokenizers; alignment own.
"""

import base64
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from meddiff.common.errors import UserError
from meddiff.models.text.tokens import TextTokenizer, Word

if TYPE_CHECKING:
    from tokenizers import Encoding

#: Start tokens whose tower calls them, and the end token, after BERT's.
BERT_NAMES = {"[CLS]": ("CLS", "SEP")}


#: A code point that no text has.
NO_LETTER = "\U0010fffd"


#: What begins a tokenizer that was packed.
PACKED = "base64,"


def packed(serialized: str) -> str:
    """A ``tokenizer.json`` as one word: a configuration reads text that looks like JSON as values, not as text."""
    return PACKED + base64.b64encode(serialized.encode()).decode()


def unpacked(text: str) -> str:
    """The other way round; a text that was not packed stays as it is."""
    return base64.b64decode(text.removeprefix(PACKED)).decode() if text.startswith(PACKED) else text


class OffsetTokenizer(TextTokenizer):
    """A tokenizer read from its own JSON text.

    Special tokens are put around a text; where a text spells one out ("[SEP]"), it is read as any other text.

    Args:
        serialized: what ``tokenizer.json`` holds, or the same :func:`packed`.
        max_length: tokens of a text, special ones included.
        pad_id: what a text is padded with.

    Raises:
        UserError: no tokenizer, or one that does not end a text with one special token.
    """

    def __init__(self, serialized: str, max_length: int, pad_id: int) -> None:
        from tokenizers import Tokenizer

        try:
            backend = Tokenizer.from_str(unpacked(serialized))
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"text_encoder: its tokenizer.json cannot be read ({error}): fetch it again.") from error
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.serialized, self.max_length, self.pad_id = str(backend.to_str()), max_length, pad_id
        self.vocab_size = int(backend.get_vocab_size(with_added_tokens=True))
        self._backend = backend
        around = backend.encode("a").special_tokens_mask
        self.starts = around.index(0) if 0 in around else len(around) - 1
        if not around or around[-1] != 1 or self.starts > 1:
            raise UserError(
                f"text_encoder: its tokenizer puts {self.starts} special tokens before a text and "
                f"{'one' if around and around[-1] else 'none'} behind it; at most one before and one behind are needed."
            )
        first = backend.encode("").tokens[0] if self.starts else ""
        self.names = BERT_NAMES.get(first, ("SOS", "EOS"))
        self._special = {*backend.encode("").ids, pad_id}
        self._unknown = backend.encode(NO_LETTER).ids[self.starts]

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text`` between the special tokens, not cut, not padded."""
        return _ids(self, text)

    def words(self, text: str) -> tuple[Word, ...]:
        """The blank-separated words of ``text`` as written; a piece belongs to the word in which most of it lies."""
        return _words(self, text)

    def spelled_out(self, number: int, special: int) -> int:
        """The id of a piece; of a special token that a text spells out (T5's vocabulary has "</s>" as a piece) the unknown."""
        return self._unknown if not special and number in self._special else number

    def encode(self, text: str) -> "Encoding":
        """What the library makes of a text; halves of surrogate pairs, which are no text, become question marks."""
        return self._backend.encode(text.encode("utf-16", "replace").decode("utf-16"))


@lru_cache(maxsize=200_000)
def _ids(tokenizer: OffsetTokenizer, text: str) -> tuple[int, ...]:
    encoding = tokenizer.encode(text)
    return tuple(map(tokenizer.spelled_out, encoding.ids, encoding.special_tokens_mask))


@lru_cache(maxsize=100_000)
def _words(tokenizer: OffsetTokenizer, text: str) -> tuple[Word, ...]:
    encoding = tokenizer.encode(text)
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    pieces: list[list[int]] = [[] for _ in spans]
    first = 0  # both go from left to right
    for position, ((begin, end), special) in enumerate(
        zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    ):
        if special:
            continue
        while first < len(spans) and spans[first][1] <= begin:
            first += 1
        shares = [min(end, stop) - max(begin, start) for start, stop in spans[first : first + 2]]
        if shares and max(shares) > 0:
            pieces[first + shares.index(max(shares))].append(position)
    words, place = [], tokenizer.starts
    for (start, stop), some in zip(spans, pieces, strict=True):
        begin, end = (some[0], some[-1] + 1) if some else (place, place)  # a word may have no piece
        words.append(Word(text[start:stop], begin, end))
        place = end
    return tuple(words)
