"""The shipped synthetic impressions follow their rules, and the checker of such files finds what breaks them."""

import itertools
from collections import Counter

import numpy as np
import pytest

from meddiff.attribution.naming import names_class
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.caption_reader import read
from tests.builders.prompt_texts import write_texts
from tools.check_impressions import main as check

TOKENIZER = ClipTokenizer()

CLASSES = (*FINDINGS, NO_FINDING)


def test_shipped_texts_follow_their_rules(rows):
    """By other means than the checker's: another reader of reports, the encoder's own truncation count."""
    assert Counter(row["label"] for row in rows) == dict.fromkeys(CLASSES, 100)
    texts = [row["impression"] for row in rows]
    assert len({" ".join(text.lower().split()) for text in texts}) == 900
    assert TOKENIZER.tokenize(texts)[1] == 0
    for row in rows:
        assert 5 <= len(row["impression"].split()) <= 45
        assert set(read(row["impression"])[0]) == {row["label"]} - {NO_FINDING}, row["impression"]
        if row["label"] != NO_FINDING:
            assert any(word in row["impression"].lower() for word in QUERY_WORDS[row["label"]])
    for label in CLASSES:
        words = [set(row["impression"].lower().split()) for row in rows if row["label"] == label]
        likeness = [len(a & b) / len(a | b) for a, b in itertools.combinations(words, 2)]
        assert max(likeness) < 0.8
        assert np.mean(likeness) < 0.12  # no two have much more in common than the names of the thing


def test_the_checker_passes_the_shipped_texts(capsys):
    assert check([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:10]] == list(CLASSES)
    assert lines[-1] == "all rules hold"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("Edema is mild.", "3 words, not 5 to 45"),
        ("Edema " + "of the lung " * 15, "46 words, not 5 to 45"),
        ("Mild edema. No effusion. Normal heart. Follow up.", "4 sentences, not 1 to 3"),
        ("Edema " + "pseudohypoparathyroidism " * 20, "tokens, the text encoder takes 77"),
        ("Edematous lungs, worse than yesterday.", "does not name its class"),
        ("There is no edema in this patient.", "does not assert its class"),
        ("Edema with pneumonia on the left.", "asserts Pneumonia"),
        ("Pulmonary EDEMA has not changed", "occurs twice"),
    ],
)
def test_the_checker_names_what_is_wrong(tmp_path, capsys, text, match):
    good = ("Edema", "Pulmonary edema has not changed.")
    path = write_texts(tmp_path / "own.csv", good, ("Edema", text), (NO_FINDING, "No acute disease is seen."))
    assert check([path, "--texts", "0"]) == 1
    out = capsys.readouterr().out
    assert match in out
    assert "1 rule broken" in out
    path = write_texts(tmp_path / "own.csv", good, (NO_FINDING, "No acute disease is seen."))
    assert check([path, "--texts", "0"]) == 0
    assert check([path]) == 1  # not a hundred
    assert "Pneumonia has 0 texts, not 100" in capsys.readouterr().out


def test_the_checker_sees_permuted_templates(tmp_path, capsys):
    words = ["mild", "moderate", "severe", "stable", "new", "old", "large", "small"]
    texts = [("Edema", f"There is {word} pulmonary edema in both of the lungs today again.") for word in words]
    path = write_texts(tmp_path / "own.csv", *texts, (NO_FINDING, "No acute disease is seen."))
    assert check([path, "--texts", "0"]) == 1
    assert "8 texts are nearly the same as another one" in capsys.readouterr().out
    assert check([str(tmp_path / "absent.csv")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_shipped_texts_name_their_class(rows):
    named = [
        names_class(r["impression"], r["label"], QUERY_WORDS[r["label"]]) for r in rows if r["label"] != NO_FINDING
    ]
    assert len(named) == 800
    assert all(named)
