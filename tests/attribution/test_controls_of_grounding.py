"""The instruments behind the controls of grounding: mirrored twins, and words told apart."""

import numpy as np
import pytest
import torch
from benchmarks.telling_apart import by_class, compare, own_part

from meddiff.evaluation.mirrored_twins import score_twins
from meddiff.evaluation.samples import GroundingSample

SIZE = 48


def twins(number: int) -> list[GroundingSample]:
    """Pairs with a box on the left of the one and on the right of the other."""
    draw = np.random.default_rng(0)
    samples = []
    for pair in range(number):
        x, y = draw.uniform(2, 12), draw.uniform(2, 36)
        for side, left in enumerate((x, SIZE - x - 8)):
            box = np.array([[left, y, 8.0, 10.0]])
            samples.append(GroundingSample(2 * pair + side, f"k{2 * pair + side}", "Edema", "edema", box, (SIZE, SIZE)))
    return samples


def noise(number: int) -> torch.Tensor:
    return torch.rand(number, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_a_map_of_the_finding_moves_and_a_map_of_the_anatomy_does_not():
    samples = twins(40)
    boxes = torch.stack([torch.from_numpy(one.box_mask()).float() for one in samples])
    seen = score_twins(samples, list(noise(80) + boxes))
    assert (seen.pairs, seen.moved) == (40, 1.0)
    assert seen.own["cnr"] > 2 > 0 > seen.twin["cnr"]
    # Anatomy: both twins have a map that is high on both places. Its CNR is high, and says nothing of the finding.
    both = (boxes + boxes.reshape(40, 2, SIZE, SIZE).flip(1).reshape(80, SIZE, SIZE)).clamp(max=1)
    blind = score_twins(samples, list(noise(80) + both))
    assert blind.own["cnr"] > 1.5
    assert blind.own["cnr"] == pytest.approx(blind.twin["cnr"], abs=0.1)
    assert 0.25 < blind.moved < 0.75
    assert blind.low < 0.5 < blind.high
    # The same map for both twins, whatever it prefers, is chance exactly.
    fixed = score_twins(samples, [noise(1)[0] + boxes[0]] * 80)
    assert fixed.moved == 0.5


def table(own: float, other: float, spread: float) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Two findings in each of 200 images; the end token's CNRs are drawn."""
    draw = np.random.default_rng(2)
    found = {}
    for image in range(200):
        for word in ("A", "B"):
            for finding in ("A", "B"):
                cnr = (own if word == finding else other) + spread * draw.standard_normal()
                found[f"i{image}", word, finding] = (cnr, draw.standard_normal())
    return found


def test_words_that_know_their_finding_come_first_and_saliency_does_not():
    knows = compare(table(1.0, 0.0, 0.2))
    assert (knows["pairs"], knows["first"]) == (400, pytest.approx(1.0, abs=0.01))
    assert knows["own"] - knows["other"] == pytest.approx(1.0, abs=0.1)
    assert knows["eos_first"] == pytest.approx(0.5, abs=0.1)
    salient = compare(table(1.0, 1.0, 0.2))
    assert salient["low"] < 0.5 < salient["high"]
    assert salient["own"] > 0.9


def test_what_is_a_word_s_own_is_left_when_sharp_words_and_salient_findings_are_taken_off():
    sharp, salient = np.array([0.0, 2.0, 1.0]), np.array([1.0, 0.0, 3.0])
    assert own_part(sharp[:, None] + salient) == pytest.approx(np.zeros(3))
    assert own_part(sharp[:, None] + salient + np.eye(3)) == pytest.approx(np.full(3, 1 - 1 / 3))
    means = by_class(table(1.0, 0.25, 0.0), ("A", "B", "C"))
    assert means[:2, :2].tolist() == [[1.0, 0.25], [0.25, 1.0]]
    assert np.isnan(means[2]).all()
