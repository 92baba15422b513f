"""Graders whose every reason is known: what each is worth is what is left of its score, on phantoms as models are asked."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from meddiff.evaluation.measurement import Row
from meddiff.metrics.functional import grounding_gain
from meddiff.metrics.gain_summary import GAIN_CONTROLS, LEAST
from tools.planted_graders import SIZE, Cohorts, Grader, cohorts, gains_of, graders, half, least_of, maps_of, question

Gained = dict[str, Row]
REAL = ("absent", "other_patient", "mirrored_box")


@pytest.fixture(scope="module")
def on() -> Cohorts:
    return cohorts(n=96, seed=3)


@pytest.fixture(scope="module")
def planted() -> dict[str, Grader]:
    return graders()


@pytest.fixture(scope="module")
def gained(on: Cohorts, planted: dict[str, Grader]) -> Callable[[str], Gained]:
    """Name of a planted grader -> its rows, made once."""

    @cache
    def rows(name: str) -> Gained:
        return gains_of(planted[name], on)

    return rows


def part(rows: Gained, control: str, name: str = "gain") -> float:
    return float(rows[control][name] or 0.0)


def test_a_perfect_grounder_keeps_its_score(gained: Callable[[str], Gained]) -> None:
    rows = gained("perfect")
    assert set(rows) == {LEAST, *GAIN_CONTROLS}
    cnr = part(rows, "absent", "cnr")
    assert cnr > 1.2
    assert part(rows, LEAST, "low") < cnr < part(rows, LEAST, "high")
    assert part(rows, LEAST) == pytest.approx(cnr, rel=0.1)
    for control in GAIN_CONTROLS:
        assert part(rows, control) == pytest.approx(part(rows, control, "cnr"), rel=0.06), control
        assert part(rows, control, "control_cnr") == pytest.approx(0.0, abs=0.08), control


@pytest.mark.parametrize(
    "name",
    [
        "noise",
        "saliency: every finding, whatever the word",
        "centre prior",
        "location prior of the class",
        "anatomy: the lungs, whatever the word",
        "anatomy: the organ of the word",
        "anatomy: anything but the lungs",
        "its place on both sides",
        "every finding, if the one asked for is there",
        "location prior, if the one asked for is there",
    ],
)
def test_what_does_not_follow_the_word_to_its_finding_scores_nothing(
    name: str, gained: Callable[[str], Gained]
) -> None:
    rows = gained(name)
    assert part(rows, LEAST, "low") <= 0 <= part(rows, LEAST, "high")
    assert part(rows, LEAST) == pytest.approx(0.0, abs=0.12)
    if name == "anatomy: anything but the lungs":
        assert part(rows, "absent", "cnr") < -0.8, "no word has lost anything: none was ever followed"
    elif name != "noise":
        assert part(rows, "absent", "cnr") > 0.4, "the control: its CNR is one that a model would be proud of"


def test_each_control_catches_what_others_let_through(gained: Callable[[str], Gained]) -> None:
    """The cheapest cheats: none is caught by all controls, so the least of them counts and no mean would do."""
    caught_by = {
        "saliency: every finding, whatever the word": {"absent", "other_finding"},
        "every finding, if the one asked for is there": {"other_finding"},
        "location prior, if the one asked for is there": {"twin", "other_patient", "mirrored_box"},
        "its place on both sides": {"twin"},
    }
    for name, expected in caught_by.items():
        rows = gained(name)
        found = {control for control in GAIN_CONTROLS if part(rows, control) < 0.15}
        assert expected <= found, (name, found)
        others = set(GAIN_CONTROLS) - expected - {"mirrored_box"}
        assert all(part(rows, control) > 0.15 for control in others), (name, rows)
    real = least_of(gained("every finding, if the one asked for is there"), REAL)
    assert real > 0.9, "docs/controls.md says that a real cohort's controls do not catch it"


def test_a_map_that_knows_the_side_alone_is_worth_the_side(on: Cohorts, gained: Callable[[str], Gained]) -> None:
    name = "side only: the half that the phrase says"
    rows = gained(name)
    # What the side is worth, without any map of the grader: the half of the picture of the finding, and the other half.
    split = on.mirrored
    sided = [one for one in split.samples if split.side(one.index, one.label) != "both"]
    boxes = torch.stack([torch.from_numpy(one.box_mask()) for one in sided])
    own = torch.stack([torch.from_numpy(half(split.side(one.index, one.label))) for one in sided])
    right = maps_of(lambda at: half(at.side), [question(split, one, one) for one in sided])
    wrong = maps_of(lambda at: 1 - half(at.side), [question(split, one, one) for one in sided])
    worth = grounding_gain(right, boxes, control_maps=wrong)
    assert float((own.bool() & boxes).sum() / boxes.sum()) > 0.9, "findings lie on the side that the phrase says"
    assert part(rows, "twin") == pytest.approx(float(worth.gain.nanmean()), rel=0.1)
    # Of the headline it is what the right side has over none.
    cnr = part(rows, "absent", "cnr")
    assert 0.2 < part(rows, LEAST) <= cnr
    assert part(rows, LEAST, "high") > 0.8 * cnr
    assert part(rows, LEAST) < 0.6 * part(gained("perfect"), LEAST)


def test_a_map_on_the_wrong_side_is_not_paid_for_it(on: Cohorts) -> None:
    rows = gains_of(lambda at: 1 - half(at.side) if at.side != "both" else half("left") * 0, on)
    assert part(rows, LEAST) < -0.3


def test_noise_in_the_maps_costs_score_and_makes_none(on: Cohorts, planted: dict[str, Grader]) -> None:
    grader = planted["perfect"]
    sharp, noisy = (part(gains_of(grader, on, noise), LEAST) for noise in (0.1, 1.0))
    assert sharp > 2 * noisy > 0
    assert math.isfinite(noisy)


def test_questions_are_those_that_a_model_is_asked(on: Cohorts) -> None:
    split = on.grounding
    sample = next(one for one in split.samples if split.side(one.index, one.label) == "left")
    asked = question(split, sample, sample)
    assert (asked.image, asked.label, asked.side) == (sample.index, sample.label, "left")
    assert sample.label in asked.named
    # Boxes are those of the mask that a perfect grader lights up, on the left of the patient: the right of the picture.
    mask, box = asked.asked > 0, sample.box_mask()
    assert (mask & box).sum() / mask.sum() > 0.95
    assert np.nonzero(box)[1].mean() > SIZE / 2 - 4
