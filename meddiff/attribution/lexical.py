"""Content words of a phrase by a closed list of function words: what a part-of-speech tagger keeps, without its weights.

Published protocols keep adjectives, nouns and verbs of a tagger's tokens and look them up by their number among the blank-
separated words, so that every word behind a hyphen or a number that the tagger split is taken for another one. Here a word is
what the text tower's own tokenizer says it is, with its tokens. Source: Nuetzel et al., Generate to ground, 2025 (the filter);
the list own.
"""

import re

import torch

from meddiff.attribution.token_roles import ARTICLES, DENIALS, FUNCTION, RELATIONS, plain
from meddiff.attribution.words import Query
from meddiff.models.text.tokens import TextTokenizer

# fmt: off
#: Of the relations those that are verbs or adjectives.
VERBS = frozenset({"involving", "occupying", "overlying", "projecting", "seen"})
#: What is no adjective, noun or verb: a closed list.
FUNCTION_WORDS = FUNCTION | ARTICLES | DENIALS | (RELATIONS - VERBS) | frozenset({
    "after", "again", "against", "all", "also", "although", "among", "another", "any", "around", "because", "been",
    "before", "being", "between", "but", "can", "cannot", "could", "did", "do", "does", "during", "each", "either",
    "else", "few", "had", "he", "her", "here", "him", "his", "however", "i", "if", "its", "itself", "just", "may",
    "me", "might", "more", "most", "must", "my", "neither", "nor", "now", "off", "only", "onto", "our", "out", "per",
    "perhaps", "rather", "shall", "she", "should", "since", "so", "some", "such", "than", "their", "them", "then",
    "these", "they", "those", "though", "through", "thus", "to", "toward", "towards", "until", "up", "upon", "us",
    "versus", "very", "via", "we", "what", "when", "where", "whereas", "which", "while", "who", "whose", "will",
    "within", "would", "yet", "you", "your",
})
# fmt: on


def is_content(word: str) -> bool:
    """Whether a word is none of the function words, and no number or sign.

    Example:
        >>> [is_content(word) for word in ("Left-sided", "the", "No", "effusion,", "3.5", "-")]
        [True, False, False, True, False, False]
    """
    name = plain(word)
    return re.search(r"[^\W\d_]", name) is not None and name not in FUNCTION_WORDS


def content_tokens(tokenizer: TextTokenizer, text: str, first: bool = False) -> Query:
    """Weights over the tokens of ``text``: the mean over its content words of the mean over each one's tokens.

    Args:
        tokenizer: of the model's text tower.
        first: of each word the first token alone, as published.

    Returns:
        Without a content word: all words of the text, as :func:`~meddiff.attribution.words.query_tokens` does.
    """
    words = tokenizer.words(text)
    kept = [word for word in words if is_content(word.text)]
    weights = torch.zeros(tokenizer.max_length)
    spans = [tokenizer.kept(word) for word in kept or words]
    whole = [(start, start + 1 if first else stop) for start, stop in spans if stop > start]
    for start, stop in whole:
        weights[start:stop] += 1.0 / (stop - start) / len(whole)
    cut = tuple(word.text for word in kept if word.stop > tokenizer.room)
    return Query(weights, tuple(word.text for word in kept), cut)


def all_tokens(tokenizer: TextTokenizer, text: str) -> torch.Tensor:
    """(L,) the mean over all tokens of ``text`` between its start and its end token; all zero where it has none."""
    first, last = tokenizer.starts, tokenizer.length(text) - 1
    weights = torch.zeros(tokenizer.max_length)
    if last > first:
        weights[first:last] = 1.0 / (last - first)
    return weights
