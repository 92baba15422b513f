"""Where a text is asked: token positions of names, end tokens, and what is wanted there."""

import torch

from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.models.text.clip_tower import ClipTower
from meddiff.models.text.language_heads import UNASKED, LanguageHeads, Named, questions

TOKENIZER = ClipTokenizer()
TEXT = "No pneumothorax. Small left pleural effusion, unchanged."


def spelled(text: str, span: range) -> str:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer().decode([TOKENIZER.ids(text)[place] for place in span]).strip()


def test_a_name_is_all_tokens_of_its_words_glued_punctuation_with_them() -> None:
    start = TEXT.index("pneumothorax")
    assert spelled(TEXT, TOKENIZER.span(TEXT, start, start + len("pneumothorax"))) == "pneumothorax ."
    start = TEXT.index("pleural")
    assert spelled(TEXT, TOKENIZER.span(TEXT, start, start + len("pleural effusion"))) == "pleural effusion ,"
    assert spelled(TEXT, TOKENIZER.span(TEXT, 0, 2)) == "no"


def test_questions_stand_at_the_names_and_at_the_end() -> None:
    denied = Named(3, 15, finding=7, denied=1, side=UNASKED, severity=UNASKED)
    there = Named(TEXT.index("effusion"), TEXT.index("effusion") + 8, finding=5, denied=0, side=1, severity=0)
    longest = TOKENIZER.length(TEXT)
    asked = questions(TOKENIZER, ["Normal chest.", TEXT], [(), (denied, there)], classes=8, length=longest)
    assert asked.labels.tolist() == [[0.0] * 8, [0.0] * 5 + [1.0, 0.0, 0.0]]
    assert asked.ends.tolist() == [TOKENIZER.length("Normal chest.") - 1, 2 * longest - 1]
    inside = {place - longest for place in asked.places.tolist()}
    assert inside == {*TOKENIZER.span(TEXT, 3, 15), *TOKENIZER.span(TEXT, there.start, there.stop)}
    assert {tuple(row) for row in asked.targets.tolist()} == {(7, 1, UNASKED, UNASKED), (5, 0, 1, 0)}


def test_nothing_named_asks_nothing_at_words() -> None:
    asked = questions(TOKENIZER, ["Normal chest."], [()], classes=8, length=77)
    assert asked.places.shape == (0,)
    assert asked.targets.shape == (0, 4)


def test_a_name_beyond_what_is_kept_is_not_asked_for() -> None:
    long = "normal " * 90 + "effusion"
    assert len(TOKENIZER.span(long, long.index("effusion"), len(long))) == 0


def test_what_the_tokenizer_reads_otherwise_is_not_asked_for() -> None:
    assert len(TOKENIZER.span("small \x07 effusion", 8, 16)) == 0  # a control character vanishes, and a word with it
    assert spelled("small  effusion", TOKENIZER.span("small  effusion", 7, 15)) == "effusion"  # two blanks are one


def test_heads_read_what_they_are_given() -> None:
    heads = LanguageHeads(16, 8)
    assert [one.shape for one in heads.at_names(torch.zeros(3, 16))] == [(3, 8), (3, 2), (3, 4), (3, 3)]
    assert heads.next_tokens(torch.zeros(5, 16), torch.zeros(11, 16)).shape == (5, 11)


def test_texts_without_their_padding_have_the_same_states() -> None:
    torch.manual_seed(0)
    tower = ClipTower(16, 2, 2, embedding_std=0.5)
    tokens, _ = TOKENIZER.tokenize([TEXT])
    whole = tower(tokens)
    short = TOKENIZER.length(TEXT)
    torch.testing.assert_close(tower(tokens[:, :short]), whole[:, :short], rtol=1e-5, atol=1e-5)
    changed = tokens.clone()
    changed[:, 2] = 5  # control: what stands before does change a state
    assert (tower(changed)[:, short - 1] - whole[:, short - 1]).abs().max() > 1e-3
