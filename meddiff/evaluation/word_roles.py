"""What each token of a caption is there for: finding, side, place, severity, denial, function word, or no word at all.

Roles are told by lists of words, so that they are known on every cohort; which word of a text names which finding,
denied or not, only the phantoms' grammar says (:mod:`meddiff.phantoms.mentions`). Source: own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.attribution.token_roles import DENIALS, FUNCTION, PLACES, SIDES, plain
from meddiff.attribution.words import QUERY_WORDS, special_tokens
from meddiff.models.text.tokens import TextTokenizer, Word
from meddiff.phantoms.lexicon import ADVERBS, SIZES

#: In the order of tables. The last three are no words.
ROLES = ("finding", "side", "place", "severity", "denial", "function", "other", "start", "end", "padding")
SPECIAL = ROLES[-3:]
SEVERITIES = (
    frozenset(word for kinds in SIZES.values() for kind in kinds for one in kind for word in one.split())
    | frozenset(word for kind in ADVERBS for word in kind)
) - FUNCTION


class Piece(NamedTuple):
    """A word, or a kind of special token, of one text.

    Attributes:
        role: of :data:`ROLES`.
        word: as tables call it: lower case, without punctuation around it; of special tokens the role.
        weights: (L,), a mean over its tokens; all zero where it was cut off or the text has none.
        tokens: how many there are.
    """

    role: str
    word: str
    weights: Tensor
    tokens: int


def role_of(word: str, queries: Sequence[str]) -> str:
    """The role of a word as :func:`plain` writes it.

    Args:
        queries: words that name a finding; a word is one of its words when it contains one, as in grounding.

    Example:
        >>> [role_of(word, ("effusion",)) for word in ("large", "left", "effusions", "is", "seen")]
        ['severity', 'side', 'finding', 'function', 'other']
    """
    if any(query in word for query in queries):
        return "finding"
    lists: Mapping[str, frozenset[str]] = {
        "side": SIDES,
        "place": PLACES,
        "severity": SEVERITIES,
        "denial": DENIALS,
        "function": FUNCTION,
    }
    return next((role for role, words in lists.items() if word in words), "other")


def pieces(tokenizer: TextTokenizer, text: str, label: str | None = None) -> list[Piece]:
    """Every word of ``text`` in order, then start token, end token and padding.

    Args:
        label: the class whose query words are the finding's; None takes those of all classes. Another list of query
            words than the paper's is for grounding.
    """
    queries = QUERY_WORDS.get(label, ()) if label else tuple(word for words in QUERY_WORDS.values() for word in words)
    found = [_piece(tokenizer, word, queries) for word in tokenizer.words(text)]
    for role, weights in special_tokens(tokenizer, text).items():
        found.append(Piece(role, role, weights, int((weights > 0).sum())))
    return found


def _piece(tokenizer: TextTokenizer, word: Word, queries: Sequence[str]) -> Piece:
    start, stop = tokenizer.kept(word)
    weights = torch.zeros(tokenizer.max_length)
    if stop > start:
        weights[start:stop] = 1.0 / (stop - start)
    name = plain(word.text)
    return Piece(role_of(name, queries), name, weights, stop - start)


def by_role(found: Sequence[Piece]) -> dict[str, Tensor]:
    """role -> (L,) mean over its words of the mean over each word's tokens; roles that the text lacks are missing."""
    rows: dict[str, list[Tensor]] = {}
    for piece in found:
        if piece.tokens:
            rows.setdefault(piece.role, []).append(piece.weights)
    return {role: torch.stack(rows[role]).mean(dim=0) for role in ROLES if role in rows}


def tokens_at(tokenizer: TextTokenizer, text: str, start: int, stop: int) -> Tensor:
    """(L,) mean over the tokens of the words that touch characters ``start`` to ``stop`` - 1.

    All zero where the words were cut off, or where the tokenizer reads other words than are written.
    """
    weights, span = torch.zeros(tokenizer.max_length), tokenizer.span(text, start, stop)
    weights[span.start : span.stop] = 1.0
    return weights / weights.sum().clamp(min=1.0)
