"""Centre prior and random maps: what a grounding figure has to beat, and what they themselves must score."""

import numpy as np
import pytest

from meddiff.evaluation.priors import centre_prior, random_maps
from meddiff.evaluation.samples import GroundingSample


def boxed(number: int, *box: float) -> GroundingSample:
    return GroundingSample(number, f"k{number}", "Edema", "edema", np.array([box]), (64, 96))


def test_the_centre_prior_is_right_in_the_middle_and_wrong_in_a_corner():
    middle, corner = centre_prior([boxed(0, 38, 22, 20, 20)]), centre_prior([boxed(0, 0, 0, 20, 12)])
    assert middle["cnr"] > 2
    assert middle["auroc"] > 0.95
    assert middle["top1"] == 1
    assert corner["cnr"] < -0.5
    assert corner["auroc"] < 0.1
    assert corner["top1"] == 0


def test_random_maps_score_chance_and_are_the_sample_s_own():
    draw = np.random.default_rng(0)
    boxes = [(draw.uniform(0, 60), draw.uniform(0, 40), 30.0, 20.0) for _ in range(400)]
    samples = [boxed(number, *box) for number, box in enumerate(boxes)]
    found = random_maps(samples)
    assert found["n"] == 400
    assert found["cnr"] == pytest.approx(0, abs=0.06)
    assert found["auroc"] == pytest.approx(0.5, abs=0.02)
    # the share of the image that a box covers
    assert found["top1"] == pytest.approx(30 * 20 / (64 * 96), abs=0.06)
    some = samples[:40]
    assert random_maps(some[::-1])["cnr"] == pytest.approx(random_maps(some)["cnr"], abs=1e-12)
    alone = [random_maps([one])["cnr"] for one in samples[:5]]
    assert np.mean(alone) == pytest.approx(random_maps(samples[:5])["cnr"], abs=1e-12)
    assert len(set(alone)) == 5
    assert random_maps(some, seed=1)["cnr"] != random_maps(some)["cnr"]
