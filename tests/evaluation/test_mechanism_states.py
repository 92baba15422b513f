"""Planted states: what was moved is found to the last digit, what was erased cannot be read, and elsewhere nothing changes."""

import numpy as np
import pytest
import torch

from meddiff.evaluation.linear_probe import fit_probe
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.mechanism_states import (
    POSITIONS,
    QUESTIONS,
    Caption,
    examples,
    moved_rows,
    probe_rows,
    read_states,
)
from meddiff.evaluation.word_roles import ROLES, by_role, pieces, plain, role_of, tokens_at
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.grammar_captions import ChangedTower, grammar_captions, small_tower

FIT = 500
TOKENIZER = ClipTokenizer()


def captions() -> tuple[list[Caption], list[Caption]]:
    found = grammar_captions(900)
    return list(found[:FIT]), list(found[FIT:])


def finding_ids() -> set[int]:
    """Every piece of every word that names a finding, wherever it stands."""
    found = set()
    for caption in grammar_captions(900):
        ids = TOKENIZER.ids(caption.text)
        for mention in caption.mentions or ():
            weights = tokens_at(TOKENIZER, caption.text, mention.start, mention.stop)
            found |= {ids[place] for place in weights.nonzero().flatten().tolist() if place < len(ids) - 1}
    return found


@pytest.fixture(scope="module")
def plain_rows() -> list[Row]:
    return probe_rows(small_tower(), *captions())


@pytest.fixture(scope="module")
def erased_rows() -> list[Row]:
    return probe_rows(ChangedTower(small_tower(), finding_ids()), *captions())


def row(rows: list[Row], question: str, position: str, control: str = "") -> dict[str, float]:
    (found,) = [
        one for one in rows if (one["question"], one["position"], one["control"]) == (question, position, control)
    ]
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


# ---- words and their tokens ------------------------------------------------------------------------------------------


def test_every_token_of_a_text_has_one_role() -> None:
    text = "Small left-sided effusion at the lung base, no pneumothorax."
    found = pieces(TOKENIZER, text)
    assert [(one.role, one.word) for one in found] == [
        ("severity", "small"), ("side", "left-sided"), ("finding", "effusion"), ("function", "at"), ("function", "the"),
        ("place", "lung"), ("place", "base"), ("denial", "no"), ("finding", "pneumothorax"),
        ("start", "start"), ("end", "end"), ("padding", "padding"),
    ]  # fmt: skip
    covered = torch.stack([one.weights * one.tokens for one in found]).sum(dim=0)
    assert torch.allclose(covered, torch.ones(TOKENIZER.max_length))
    assert all(role in ROLES for role in by_role(found))


def test_a_phrase_about_one_class_has_its_words_alone() -> None:
    found = pieces(TOKENIZER, "effusion and edema", "Edema")
    assert [one.role for one in found[:3]] == ["other", "function", "finding"]
    assert role_of(plain("EDEMA."), ("edema",)) == "finding"


def test_words_that_are_cut_off_have_no_tokens() -> None:
    short = ClipTokenizer(max_length=5)
    found = pieces(short, "one two three four edema")
    assert [one.tokens for one in found if one.role == "finding"] == [0]
    assert "finding" not in by_role(found)
    assert not tokens_at(short, "one two three four edema", 19, 24).any()


def test_tokens_of_a_mention_are_those_of_its_words() -> None:
    text = "no pleural effusion, or edema."
    words = {word.text: (word.start, word.stop) for word in TOKENIZER.words(text)}
    weights = tokens_at(TOKENIZER, text, text.index("pleural"), text.index(","))
    start, stop = words["pleural"][0], words["effusion,"][1]
    assert weights.nonzero().flatten().tolist() == list(range(start, stop))
    assert float(weights.sum()) == pytest.approx(1.0)


# ---- the probe -------------------------------------------------------------------------------------------------------


def test_the_probe_is_ridge_regression_of_a_library() -> None:
    """Against scikit-learn, of equal classes, at the penalty that was chosen."""
    from sklearn.linear_model import Ridge

    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    states = draw.normal(size=(90, 7)) * 3 + 5 + np.eye(3)[labels] @ draw.normal(size=(3, 7))
    found = fit_probe(states, labels)
    scaled = (states - states.mean(axis=0)) / states.std(axis=0)
    unit = (np.linalg.svd(scaled, compute_uv=False) ** 2).mean()
    other = Ridge(alpha=found.penalty * unit).fit(scaled, np.eye(3)[labels])
    assert found.matrix == pytest.approx(other.coef_.T, abs=1e-9)
    assert (found.predict(states) == other.predict(scaled).argmax(axis=1)).all()


def test_the_penalty_is_the_one_that_leaving_out_finds() -> None:
    """Refitted without each example: what says nothing is shrunk, what says all is not."""
    draw = np.random.default_rng(1)
    labels = np.tile([0, 1], 30)
    noise = fit_probe(draw.normal(size=(60, 40)), labels)
    telling = fit_probe(np.c_[labels * 4.0 + draw.normal(size=60) * 0.1, draw.normal(size=(60, 5))], labels)
    assert noise.penalty > 10 * telling.penalty


def test_a_direction_that_never_varies_is_left_alone() -> None:
    labels = np.array([0, 1] * 5)
    probe = fit_probe(np.c_[labels.astype(float), np.full(10, 7.0)], labels)
    assert np.isfinite(probe.matrix).all()
    assert probe.predict(np.array([[1.0, 8.0], [0.0, -3.0]])).tolist() == [1, 0]


def test_shuffled_answers_come_out_at_chance(plain_rows: list[Row]) -> None:
    for question in QUESTIONS:
        for position in POSITIONS:
            found = row(plain_rows, question, position, "shuffled")
            assert abs(found["accuracy"] - found["chance"]) < 0.09, (question, position, found)
            assert found["n"] > 50


def test_an_erased_word_says_nothing_and_the_end_token_as_much_as_before(
    plain_rows: list[Row], erased_rows: list[Row]
) -> None:
    for question in ("named", "denied"):
        before, after = (row(rows, question, "finding") for rows in (plain_rows, erased_rows))
        assert before["low"] > before["chance"] + 0.1
        assert abs(after["accuracy"] - after["chance"]) < 0.07, (question, after)
        assert row(erased_rows, question, "end") == pytest.approx(row(plain_rows, question, "end"), abs=1e-9)
        assert row(erased_rows, question, "padding") == pytest.approx(row(plain_rows, question, "padding"), abs=1e-9)


def test_all_positions_are_asked_the_same(plain_rows: list[Row]) -> None:
    """Same captions and answers at the word, the end token and padding: only so can they be compared."""
    reads = read_states(small_tower(), captions()[1])
    for question in QUESTIONS:
        at = [examples(reads, position, question, "Pleural Effusion") for position in POSITIONS[:3]]
        assert at[0].keys == at[1].keys == at[2].keys
        assert at[0].answers == at[1].answers == at[2].answers
    assert set(examples(reads, "end", "denied", "Edema").answers) == {"yes", "no"}
    assert set(examples(reads, "end", "side", "Pleural Effusion").answers) == {"left", "right", "bilateral"}
    assert examples(reads, "end", "side", "Cardiomegaly").answers == []


def test_captions_of_training_are_not_tested_on() -> None:
    fit, _ = captions()
    assert all(not one["n"] for one in probe_rows(small_tower(), fit, fit[:100]))


# ---- movement --------------------------------------------------------------------------------------------------------


def test_the_same_tower_has_not_moved() -> None:
    rows = moved_rows(small_tower(), small_tower(), captions()[1][:40])
    assert {str(one["role"]) for one in rows} >= {"finding", "side", "function", "end", "padding", "start"}
    for one in rows:
        assert float(one["moved"] or 0) == pytest.approx(0.0, abs=1e-6)
        assert float(one["cosine"] or 0) == pytest.approx(1.0, abs=1e-6)
        assert one["role"] in ("start", "padding") or float(one["apart"] or 0) > 0.05


def test_a_moved_state_is_recovered_and_the_others_stay() -> None:
    """Words of findings are moved by a vector: length and angle are those of a calculation by hand."""
    base, text = small_tower(), "left effusion"
    move = torch.randn(32, generator=torch.Generator().manual_seed(3))
    ids = set(TOKENIZER.ids("effusion")[1:-1])
    rows = {str(one["role"]): one for one in moved_rows(ChangedTower(base, ids, move), base, [Caption("a", text)])}
    word = TOKENIZER.words(text)[1]
    with torch.no_grad():
        states = base(TOKENIZER.tokenize([text])[0])[0, word.start : word.stop]  # (T, D)
    assert float(rows["finding"]["moved"] or 0) == pytest.approx(
        float((move.norm() / states.norm(dim=-1)).mean()), rel=1e-5
    )
    angle = torch.cosine_similarity(states + move, states, dim=-1).mean()
    assert float(rows["finding"]["cosine"] or 0) == pytest.approx(float(angle), rel=1e-5)
    for role in ("side", "start", "end", "padding"):
        assert float(rows[role]["moved"] or 0) == pytest.approx(0.0, abs=1e-6)
