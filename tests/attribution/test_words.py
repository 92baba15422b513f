"""Words and their token pieces, against open_clip's tokenizer itself."""

import pytest
import torch

from meddiff.attribution.coco_words import class_tokens
from meddiff.attribution.naming import names_class
from meddiff.attribution.words import QUERY_WORDS, query_tokens, special_tokens
from meddiff.models.text.clip_tokenizer import CONTEXT_LENGTH, ClipTokenizer, clean_text

TOKENIZER = ClipTokenizer()

PHRASE = "Moderate left pneumothorax, with bibasilar atelectasis and small effusions."


def test_pieces_of_the_words_are_the_pieces_of_the_text() -> None:
    words = TOKENIZER.words(PHRASE)
    tokens = TOKENIZER.tokenize([PHRASE])[0][0]
    assert [word.text for word in words] == PHRASE.split()
    assert words[0].start == 1
    assert words[-1].stop == len(TOKENIZER.ids(PHRASE)) - 1
    for word in words:
        assert tuple(tokens[word.start : word.stop].tolist()) == TOKENIZER.ids(word.text)[1:-1]
    assert any(word.stop - word.start > 1 for word in words), "no word falls into pieces: the test would show nothing"


def test_a_query_takes_all_pieces_of_its_word_and_nothing_else() -> None:
    word = next(word for word in TOKENIZER.words(PHRASE) if word.text.startswith("pneumothorax"))
    query = query_tokens(TOKENIZER, PHRASE, QUERY_WORDS["Pneumothorax"])
    assert query.words == ("pneumothorax,",)
    assert not query.is_fallback
    inside = query.weights[word.start : word.stop]
    torch.testing.assert_close(inside, torch.full_like(inside, 1 / (word.stop - word.start)))
    assert query.weights.sum() == pytest.approx(1.0)
    assert query.weights.count_nonzero() == word.stop - word.start


def test_double_matches_weigh_twice_in_the_paper_preset_only() -> None:
    text = "Pleural effusions are small."  # "effusions" contains two query words, "pleural" one
    words = {word.text: word for word in TOKENIZER.words(text)}

    def share(preset: str) -> float:
        weights = query_tokens(TOKENIZER, text, QUERY_WORDS["Pleural Effusion"], preset).weights  # type: ignore[arg-type]
        assert weights.sum() == pytest.approx(1.0)
        return float(weights[words["effusions"].start : words["effusions"].stop].sum())

    assert share("standard") == pytest.approx(1 / 2)
    assert share("paper") == pytest.approx(2 / 3)


def test_without_a_match_all_words_stand_in_and_special_tokens_never() -> None:
    text = "The heart is enlarged."
    query = query_tokens(TOKENIZER, text, QUERY_WORDS["Pneumothorax"])
    assert query.is_fallback
    stop = len(TOKENIZER.ids(text)) - 1
    assert query.weights[1:stop].min() > 0
    assert query.weights[0] == 0
    assert query.weights[stop:].sum() == 0


def test_start_end_and_padding_share_the_context_with_the_words() -> None:
    special = special_tokens(TOKENIZER, PHRASE)
    length = len(TOKENIZER.ids(PHRASE))
    assert special["start"].nonzero().flatten().tolist() == [0]
    assert special["end"].nonzero().flatten().tolist() == [length - 1]
    assert special["padding"].nonzero().flatten().tolist() == list(range(length, CONTEXT_LENGTH))


def test_words_beyond_the_context_are_reported() -> None:
    text = "word " * 74 + "pneumothorax and atelectasis"
    cut = query_tokens(TOKENIZER, text, QUERY_WORDS["Pneumothorax"])  # its pieces straddle the end
    assert cut.truncated == ("pneumothorax",)
    assert cut.weights[-1] == 0, "the last position belongs to the end token"
    gone = query_tokens(TOKENIZER, text, QUERY_WORDS["Atelectasis"])
    assert gone.truncated == ("atelectasis",)
    assert not gone.weights.any()


#: Texts that open_clip's repair changes, and their words as it reads them.
REPAIRED = {
    "\u00c3\x89panchement pleural \u00c3 gauche.": [
        "\u00c9panchement",
        "pleural",
        "\u00e0",
        "gauche.",
    ],  # wrongly decoded
    "\u00c2 large effusion": ["large", "effusion"],  # a word that vanishes
    "infiltrat \u00c3 gauche": ["infiltrat", "\u00e0", "gauche"],  # a repair that takes a blank away
    "patient \u00e2\u20ac said: pneumonia": ["patient", "\u2020said:", "pneumonia"],
    "large\x0beffusion": ["largeeffusion"],  # control characters are taken out
    "x\x1cz\x85 edema": None,
    "pleural&nbsp;effusion": ["pleural", "effusion"],  # entities
    "e\ufb00usion &amp;amp;amp;lt; \uff45\uff44\uff45\uff4d\uff41": ["effusion", "<", "edema"],  # ligatures, full width
    "\ud800 opacity": ["\ufffd", "opacity"],
    "<end_of_text> x<start_of_text>y": ["<end_of_text>", "x<start_of_text>y"],
    "\u03a3 \u03a3\u0391\u03a3's": ["\u03a3", "\u03a3\u0391\u03a3's"],  # lower case of a final sigma
    "\u200b": ["\u200b"],
    "": [],
}


@pytest.mark.parametrize("text", REPAIRED)
def test_words_of_a_text_that_the_tokenizer_repairs_are_those_of_the_repaired_text(text: str) -> None:
    words = TOKENIZER.words(text)
    assert REPAIRED[text] in (None, [word.text for word in words])
    assert sum(word.stop - word.start for word in words) == len(TOKENIZER.ids(text)) - 2
    # pieces of the words by themselves, where the tokenizer changes none of them once more
    alone = [TOKENIZER.ids(word.text)[1:-1] for word in words]
    if all(clean_text(word.text) == word.text for word in words):
        assert tuple(one for ids in alone for one in ids) == TOKENIZER.ids(text)[1:-1]
    assert [word.start for word in words] == [1, *(word.stop for word in words)][: len(words)]
    assert (words[-1].stop if words else 1) == len(TOKENIZER.ids(text)) - 1
    assert class_tokens(TOKENIZER, text, "cat").is_fallback  # no class of MS-COCO is named, and nothing breaks


def test_a_word_is_found_where_only_the_repaired_text_has_it() -> None:
    assert query_tokens(TOKENIZER, "Small e\ufb00usion.", QUERY_WORDS["Pleural Effusion"]).words == ("effusion.",)
    assert query_tokens(TOKENIZER, "\uff25\uff44\uff45\uff4d\uff41", QUERY_WORDS["Edema"]).words == ("Edema",)
    assert names_class("Small e\ufb00usion.", "Pleural Effusion", QUERY_WORDS["Pleural Effusion"])
    query = class_tokens(TOKENIZER, "\u00c3 tra\ufb03c&nbsp;light", "traffic light")
    assert query.words == ("traffic", "light")
    assert query.weights.sum() == pytest.approx(1.0)
