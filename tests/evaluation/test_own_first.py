"""Words that tell findings apart come first on their own finding; sharp words and salient findings do not."""

import numpy as np
import pytest

from meddiff.evaluation.own_first import CrossTable, by_class, compare, own_part


def table(own: float, other: float, spread: float) -> CrossTable:
    """Two findings in each of 200 images; the end token's CNRs are drawn."""
    draw = np.random.default_rng(2)
    found = {}
    for image in range(200):
        for word in ("A", "B"):
            for finding in ("A", "B"):
                cnr = (own if word == finding else other) + spread * draw.standard_normal()
                found[f"i{image}", word, finding] = (cnr, draw.standard_normal())
    return found


def test_words_that_know_their_finding_come_first_and_saliency_does_not() -> None:
    knows = compare(table(1.0, 0.0, 0.2))
    assert (knows["pairs"], knows["first"]) == (400, pytest.approx(1.0, abs=0.01))
    assert knows["own"] - knows["other"] == pytest.approx(1.0, abs=0.1)
    assert knows["eos_first"] == pytest.approx(0.5, abs=0.1)
    salient = compare(table(1.0, 1.0, 0.2))
    assert salient["low"] < 0.5 < salient["high"]
    assert salient["own"] > 0.9


def test_what_is_a_word_s_own_is_left_when_sharp_words_and_salient_findings_are_taken_off() -> None:
    sharp, salient = np.array([0.0, 2.0, 1.0]), np.array([1.0, 0.0, 3.0])
    assert own_part(sharp[:, None] + salient) == pytest.approx(np.zeros(3))
    assert own_part(sharp[:, None] + salient + np.eye(3)) == pytest.approx(np.full(3, 1 - 1 / 3))
    means = by_class(table(1.0, 0.25, 0.0), ("A", "B", "C"))
    assert means[:2, :2].tolist() == [[1.0, 0.25], [0.25, 1.0]]
    assert np.isnan(means[2]).all()
