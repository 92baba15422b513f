"""What each token of a prompt is there for: the two ends of a relation and the relation, words and no words, function words.

A scene says "{subject} {predicate} {object}", a report "effusion at the left base": finding, relation, place. Roles are masks
over tokens. Sources: the roles of scenes are Park et al. 2024 (spec section B5), lists of words own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.attribution.words import QUERY_WORDS, special_tokens
from meddiff.common.coco_classes import mentions
from meddiff.common.errors import UserError
from meddiff.models.text.tokens import TextTokenizer

SCENE = ("subject", "relation", "object")
REPORT = ("finding", "relation", "place")
# fmt: off
SIDES = frozenset({
    "left", "right", "bilateral", "bilaterally", "both", "bibasilar", "sides", "left-sided", "right-sided",
})
PLACES = frozenset({
    "upper", "lower", "mid", "middle", "lobe", "lobes", "zone", "zones", "base", "bases", "basilar", "apical", "lateral",
    "lingula", "lingular", "lung", "lungs", "apex", "perihilar", "central", "retrocardiac",
})
DENIALS = frozenset({"no", "not", "without", "negative", "free", "denied"})
FUNCTION = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in", "is", "it", "of", "on", "or", "other",
    "that", "the", "there", "this", "to", "was", "well", "were", "with",
})
#: What joins a finding to its place. Some are function words, too: both are asked of a word, one does not exclude the other.
RELATIONS = frozenset({
    "above", "along", "at", "behind", "below", "beneath", "from", "in", "inside", "into", "involving", "near", "occupying",
    "of", "on", "over", "overlying", "projecting", "seen", "throughout", "under", "within",
})
#: Captions say who rather than "a person".
PEOPLE = frozenset({
    "boy", "boys", "child", "children", "girl", "girls", "guy", "kid", "kids", "lady", "man", "men", "people", "person",
    "woman", "women",
})
# fmt: on
ARTICLES = frozenset({"a", "an", "the"})


class Triple(NamedTuple):
    """A scene in three phrases."""

    subject: str
    predicate: str
    object: str

    @property
    def text(self) -> str:
        """The prompt."""
        return f"{self.subject} {self.predicate} {self.object}"


def plain(word: str) -> str:
    """A word without case and without punctuation around it.

    Example:
        >>> plain("Left-sided,")
        'left-sided'
    """
    return re.sub(r"^\W+|\W+$", "", word.lower())


def scene_roles(tokenizer: TextTokenizer, triple: Triple) -> dict[str, Tensor]:
    """Role of :data:`SCENE` -> (L,) bool, its tokens in ``triple.text``; none where they were cut off.

    Raises:
        UserError: a phrase without a word.
    """
    if not all(phrase.strip() for phrase in triple):
        raise UserError("A scene needs a subject, a predicate and an object, each with a word.")
    found, start = {}, 0
    for role, phrase in zip(SCENE, triple, strict=True):
        span = tokenizer.span(triple.text, start, start + len(phrase))
        found[role] = _mask(tokenizer, [(span.start, span.stop)])
        start += len(phrase) + 1
    return found


def caption_roles(tokenizer: TextTokenizer, caption: str) -> dict[str, Tensor] | None:
    """The same for a caption of MS-COCO: the first thing that it names, the next one of another class, and what stands between
    them but articles. None where it names fewer, or where nothing stands between.

    Example:
        >>> from meddiff.models.text.clip_tokenizer import ClipTokenizer
        >>> roles = caption_roles(ClipTokenizer(), "A man riding a brown horse.")
        >>> {role: tokens.nonzero().flatten().tolist() for role, tokens in roles.items()}
        {'subject': [2], 'relation': [3, 5], 'object': [6, 7]}
    """
    words = tokenizer.words(caption)
    read = " ".join(word.text for word in words)  # the caption as the tokenizer reads it
    people = [("person", *match.span()) for match in re.finditer(r"\w+", read) if match.group().lower() in PEOPLE]
    named = sorted({*mentions(read), *people}, key=lambda one: one[1])
    other = next((one for one in named if one[0] != named[0][0] and one[1] >= named[0][2]), None)
    if other is None:
        return None
    found: dict[str, list[tuple[int, int]]] = {role: [] for role in SCENE}
    for word, (begin, end) in zip(words, (match.span() for match in re.finditer(r"\S+", read)), strict=True):
        if begin < named[0][2] and end > named[0][1]:
            role = "subject"
        elif begin < other[2] and end > other[1]:
            role = "object"
        elif named[0][2] <= begin and end <= other[1] and plain(word.text) not in ARTICLES:
            role = "relation"
        else:
            continue
        found[role].append(tokenizer.kept(word))
    masks = {role: _mask(tokenizer, spans) for role, spans in found.items()}
    return masks if all(bool(mask.any()) for mask in masks.values()) else None


def report_roles(tokenizer: TextTokenizer, text: str, label: str | None = None) -> dict[str, Tensor]:
    """Role of :data:`REPORT` -> (L,) bool: words that name a finding, sides and places, and what joins the two.

    Args:
        label: the class whose query words are the finding's; None takes those of all classes.
    """
    queries = QUERY_WORDS.get(label, ()) if label else tuple(word for words in QUERY_WORDS.values() for word in words)
    tests: Mapping[str, Callable[[str], bool]] = {
        "finding": lambda word: any(query in word for query in queries),
        "relation": RELATIONS.__contains__,
        "place": (SIDES | PLACES).__contains__,
    }
    return {role: of_words(tokenizer, text, tests[role]) for role in REPORT}


def token_kinds(tokenizer: TextTokenizer, text: str) -> dict[str, Tensor]:
    """``words``, ``function`` (those of them that are function words), ``start``, ``end`` and ``padding`` -> (L,) bool."""
    kinds = {
        "words": of_words(tokenizer, text, lambda word: True),
        "function": of_words(tokenizer, text, FUNCTION.__contains__),
    }
    return kinds | {name: weights > 0 for name, weights in special_tokens(tokenizer, text).items()}


def of_words(tokenizer: TextTokenizer, text: str, wanted: Callable[[str], bool]) -> Tensor:
    """(L,) bool, the tokens of the words that ``wanted`` takes (without case and punctuation), as far as they were kept."""
    return _mask(tokenizer, [tokenizer.kept(word) for word in tokenizer.words(text) if wanted(plain(word.text))])


def word_groups(tokenizer: TextTokenizer, text: str) -> tuple[tuple[str, ...], Tensor]:
    """The words of a text that were kept, and the mean over each one's tokens, (K, L) float32."""
    kept = [(word.text, tokenizer.kept(word)) for word in tokenizer.words(text)]
    whole = [(name, span) for name, span in kept if span[1] > span[0]]
    rows = [averaged(_mask(tokenizer, [span])) for _, span in whole]
    return tuple(name for name, _ in whole), torch.stack(rows) if rows else torch.zeros(0, tokenizer.max_length)


def averaged(mask: Tensor) -> Tensor:
    """(L,) bool -> weights (L,) float32 of the mean over its tokens; all zero where it has none."""
    return mask.float() / mask.sum().clamp(min=1)


def _mask(tokenizer: TextTokenizer, spans: Sequence[tuple[int, int]]) -> Tensor:
    mask = torch.zeros(tokenizer.max_length, dtype=torch.bool)
    for start, stop in spans:
        mask[start:stop] = True
    return mask
