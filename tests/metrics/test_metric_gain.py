"""Grounding gain: pairs of scores, means with intervals, the least of them. The planted maps are in tests/evaluation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics import GroundingGain
from meddiff.metrics.functional import PairedScores, contrast_to_noise_ratio, grounding_gain
from meddiff.metrics.gain_summary import LEAST, Asking, gain_figures, gain_rows, nearest_zero
from meddiff.metrics.intervals import dyad_interval, mean_interval, pair_interval

SIZE = 24


def places(n: int) -> tuple[Tensor, Tensor]:
    """Two squares in each image that do not meet, (n, H, W) each."""
    draw = np.random.default_rng(0)
    here, there = torch.zeros(2, n, SIZE, SIZE, dtype=torch.bool)
    for i in range(n):
        y, x = draw.integers(1, SIZE - 7), draw.integers(1, 4)
        here[i, y : y + 6, x : x + 6] = there[i, y : y + 6, x + 13 : x + 19] = True
    return here, there


def noise(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_map_of_its_own_place_loses_nothing_elsewhere() -> None:
    here, there = places(60)
    maps = 2.0 * here + noise(60)
    found = grounding_gain(maps, here, control_places=there)
    plain = contrast_to_noise_ratio(maps, here)
    assert float(found.asked.mean()) == pytest.approx(float(plain.mean()), abs=0.02)
    assert float(found.control.mean()) == pytest.approx(0.0, abs=0.05)
    # The control: against all that lies outside, its own place would make the other one look bad, and the gain too good.
    naive = plain - contrast_to_noise_ratio(maps, there)
    assert float(naive.mean()) > float(found.gain.mean()) + 0.07


def test_two_questions_with_one_answer_gain_nothing_together() -> None:
    here, there = places(5)
    maps = here * 2.0 + there * 1.0 + noise(5)
    one, other = (grounding_gain(maps, *pair[:1], control_places=pair[1]) for pair in ((here, there), (there, here)))
    torch.testing.assert_close(one.gain + other.gain, torch.zeros(5, dtype=torch.float64))
    assert float(one.gain.mean()) > 0.3


def test_what_both_places_share_counts_for_neither() -> None:
    here, there = torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)
    here[0, 4:10, 4:10], there[0, 4:10, 9:15] = True, True  # a column of six pixels is in both
    maps = noise(1)
    before = grounding_gain(maps, here, control_places=there)
    changed = torch.where(here & there, 1000.0, maps)
    after = grounding_gain(changed, here, control_places=there)
    assert float(after.asked) == pytest.approx(float(before.asked), rel=1e-9)
    assert float(after.control) == pytest.approx(float(before.control), rel=1e-9)
    # More than half of a place in the other: it is no other place, and nothing is said of it.
    moved = torch.roll(here, 3, dims=2)
    nearly = grounding_gain(maps, here, control_places=moved)
    assert not nearly.asked.isnan()
    same = grounding_gain(maps, here, control_places=torch.roll(here, 2, dims=2))
    assert same.asked.isnan()
    assert same.control.isnan()


def test_an_absent_finding_is_scored_on_the_place_of_the_present_one() -> None:
    here, _ = places(4)
    maps, absent = 2.0 * here + noise(4), noise(4, 2)
    found = grounding_gain(maps, here, control_maps=absent)
    torch.testing.assert_close(found.asked, contrast_to_noise_ratio(maps, here))
    torch.testing.assert_close(found.control, contrast_to_noise_ratio(absent, here))
    # A map that is flat says nothing, which is what should be said of an absent finding: it must not be left out.
    flat = grounding_gain(maps, here, control_maps=torch.zeros_like(maps))
    assert flat.control.tolist() == [0.0] * 4
    broken = grounding_gain(maps, here, control_maps=torch.full_like(maps, torch.nan))
    assert broken.asked.isnan().all()


def test_exactly_one_control_is_asked_for() -> None:
    here, there = places(1)
    maps = noise(1)
    with pytest.raises(UserError, match="needs one control"):
        grounding_gain(maps, here)
    with pytest.raises(UserError, match="needs one control"):
        grounding_gain(maps, here, maps, there)
    with pytest.raises(UserError, match="boolean"):
        grounding_gain(maps, here, control_places=there.float())
    with pytest.raises(UserError, match="boolean"):
        grounding_gain(maps, here.float(), control_places=there)


def asked(control: str, own: np.ndarray, under: np.ndarray, images: list[int] | None = None) -> list[Asking]:
    numbers = list(range(len(own))) if images is None else images
    return [Asking(control, i, i, float(a), float(b)) for i, a, b in zip(numbers, own, under, strict=True)]


def test_the_headline_is_the_least_and_never_more_than_the_score() -> None:
    draw = np.random.default_rng(0)
    score = 1.0 + 0.3 * draw.standard_normal(200)
    # One control has nothing, one has nearly all, and one on the wrong side has less than nothing.
    under = {"absent": 0.0, "twin": 0.8, "mirrored_box": -1.0}
    rows = {
        row["control"]: row
        for row in gain_rows(a for name, k in under.items() for a in asked(name, score, score * 0 + k))
    }
    gains = {name: float(row["gain"]) for name, row in rows.items()}
    assert list(rows) == [LEAST, "absent", "twin", "mirrored_box"]
    assert gains[LEAST] == gains["twin"] == pytest.approx(0.2, abs=0.05)
    assert gains["mirrored_box"] == pytest.approx(2.0, abs=0.05)
    only = gain_rows(asked("mirrored_box", score, score * 0 - 1.0))
    assert float(only[0]["gain"]) == pytest.approx(float(score.mean())), "a wrong side must not add to the score"
    # A map that does worse than nothing, and still worse when asked for what is absent, is not grounded.
    assert gain_rows(asked("absent", score - 2.0, score - 4.0))[0]["gain"] == 0.0


def test_maps_that_avoid_findings_have_lost_no_grounding() -> None:
    draw = np.random.default_rng(1)
    score = -0.4 + 0.2 * draw.standard_normal(100)  # dark where the patient's lungs are, whatever is asked
    blind = [
        *asked("absent", score, score + 0.05 * draw.standard_normal(100)),
        *asked("mirrored_box", score, score * 0),
    ]
    rows = {row["control"]: row for row in gain_rows(blind)}
    assert float(rows["mirrored_box"]["high"]) < -0.3, (
        "the least by value would be this, and say that something was lost"
    )
    assert -0.02 < float(rows[LEAST]["low"]) <= float(rows[LEAST]["gain"]) <= float(rows[LEAST]["high"]) < 0.02
    # Words that every control agrees to point away from their own finding are another matter.
    wrong = [*asked("absent", score, score * 0), *asked("twin", score, score * 0 + 0.5)]
    assert float(gain_rows(wrong)[0]["gain"]) == pytest.approx(-0.4, abs=0.05)
    assert float(gain_rows(wrong)[0]["high"]) < -0.3


def test_the_interval_of_one_control_is_that_of_the_paired_difference_by_image() -> None:
    draw = np.random.default_rng(3)
    images = [i // 3 for i in range(90)]
    level = draw.standard_normal(30)[images]  # what the askings of an image share
    under = draw.standard_normal(90) * 0.1
    row = gain_rows(asked("absent", under + level + 0.5, under, images))[1]
    assert (row["low"], row["high"]) == pytest.approx(mean_interval((level + 0.5)[None], images))
    wrong = mean_interval((level + 0.5)[None], range(90))
    assert float(row["high"]) - float(row["low"]) > 1.3 * (wrong[1] - wrong[0]), (
        "askings of an image are not independent"
    )
    assert (row["n"], row["images"]) == (90, 30)


def test_the_interval_of_the_least_covers_where_all_are_equal_and_where_one_is_least() -> None:
    draw = np.random.default_rng(4)
    for means in ((0.5, 0.5, 0.5), (0.5, 1.0, 1.5), (0.0, 0.0, 0.02), (-0.5, -0.5, -0.5), (0.2, -0.2, 1.0)):
        least = nearest_zero([2.0 * np.sign(sum(means) + 1e-9), *means])
        inside = 0
        for _ in range(300):
            own = draw.normal(2.0 * np.sign(sum(means) + 1e-9), 1.0, (3, 40))
            some = [
                one
                for control, mean, score in zip(("absent", "twin", "mirrored_box"), means, own, strict=True)
                for one in asked(control, score, score - mean - draw.standard_normal(40))
            ]
            row = gain_rows(some)[0]
            inside += float(row["low"]) <= least <= float(row["high"])
        assert inside >= 0.93 * 300, means


def test_too_few_images_have_no_interval_and_a_sure_nothing_has_itself() -> None:
    few = gain_rows(asked("absent", np.arange(4.0), np.zeros(4)))
    assert all(math.isnan(float(row["low"])) for row in few)
    assert gain_figures(few) == {"gain": 1.5, "gain_absent": 1.5}
    same = np.random.default_rng(0).standard_normal(12)
    assert [gain_rows(asked("absent", same, same))[1][name] for name in ("gain", "low", "high")] == [0.0, 0.0, 0.0]
    assert gain_rows([]) == []
    assert gain_rows(asked("absent", np.array([np.nan, 1.0]), np.array([0.0, np.nan]))) == []


def test_pairs_that_share_an_image_are_not_independent() -> None:
    draw = np.random.default_rng(5)
    values = draw.standard_normal(60)
    apart = dyad_interval(values, range(0, 120, 2), range(1, 121, 2))
    plain = mean_interval(values[None], range(60))
    assert apart == pytest.approx(plain, rel=1e-6), "pairs without a common unit are as good as single values"
    # The same pair asked both ways is one.
    twice = dyad_interval(np.repeat(values, 2), np.arange(120) // 2 * 2, np.arange(120) // 2 * 2 + 1)
    assert twice == pytest.approx(plain, rel=1e-6)
    # Either order of the two names the same pair.
    turned = [(i ^ 1) if i // 2 % 2 else i for i in range(120)]
    assert dyad_interval(values, turned[::2], turned[1::2]) == pytest.approx(apart)
    assert all(map(math.isnan, dyad_interval(values[:4], range(0, 8, 2), range(1, 9, 2))))


def test_the_interval_over_pairs_covers_where_units_are_in_several_pairs() -> None:
    draw = np.random.default_rng(6)
    covered, widths = np.zeros(2), np.zeros(2)
    for _ in range(300):
        units = draw.standard_normal(60)
        first, second = draw.permutation(60).reshape(2, 30)
        third, fourth = draw.permutation(60).reshape(2, 30)
        a, b = np.concatenate([first, third]), np.concatenate([second, fourth])
        values = units[a] + units[b] + draw.standard_normal(60)
        ends = dyad_interval(values, a.tolist(), b.tolist()), pair_interval(values, a.tolist(), b.tolist())
        covered += [low <= 0 <= high for low, high in ends]
        widths += [high - low for low, high in ends]
    assert 0.91 * 300 <= covered[0] <= 0.98 * 300
    assert widths[1] > 1.08 * widths[0], "a jackknife over units counts each pair twice"


def test_the_metric_adds_up_batches_and_refuses_what_it_does_not_know() -> None:
    here, there = places(12)
    maps = here * 1.5 + noise(12)
    scores = grounding_gain(maps, here, control_places=there)
    whole, parts = GroundingGain(), GroundingGain()
    whole.update("twin", scores, range(12), [i ^ 1 for i in range(12)])
    for start in range(0, 12, 4):
        some = slice(start, start + 4)
        numbers = range(start, start + 4)
        parts.update("twin", PairedScores(scores.asked[some], scores.control[some]), numbers, [i ^ 1 for i in numbers])
    assert parts.compute() == pytest.approx(whole.compute())
    assert set(whole.compute()) == {"gain", "gain_low", "gain_high", "gain_twin"}
    assert whole.compute()["gain_twin"] == pytest.approx(float(scores.gain.mean()))
    with pytest.raises(UserError, match="no control of a gain"):
        whole.update("trained", scores, range(12))
    with pytest.raises(UserError, match="11 images"):
        whole.update("absent", scores, range(11))
    assert GroundingGain().update("absent", PairedScores(torch.zeros(0), torch.zeros(0)), []) is None
