"""Comparisons over seeds and images: coverage on simulated experiments, and what must not be found."""

import math

import numpy as np
import pytest

from meddiff.metrics.over_seeds import FEWEST_SEEDS, common_distance, over_seeds, paired, score_at
from meddiff.metrics.statistics import macro_mean

CLASSES, EACH = 8, 10
LABELS = np.repeat(np.arange(CLASSES), EACH).tolist()
IMAGES = list(range(CLASSES * EACH))


def experiment(
    rng: np.random.Generator, seeds: int, of_seeds: float, of_images: float, chance: float, mean: float = 0.0
) -> np.ndarray:
    """(S, N): what a seed brings to all its images, what an image brings to all seeds, and the rest."""
    n = len(IMAGES)
    rest = rng.normal(0, chance, (seeds, n)) if chance else 0.0
    return mean + rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_images, (1, n)) + rest


def coverage(times: int, seeds: int, *spreads: float) -> float:
    """Share of experiments whose interval holds the truth, 0."""
    rng, found = np.random.default_rng(7), 0
    for time in range(times):
        one = over_seeds(experiment(rng, seeds, *spreads), IMAGES, LABELS, (time,))
        found += one.low <= 0 <= one.high
    return found / times


def percentile(values: np.ndarray, rng: np.random.Generator, draws: int = 300) -> tuple[float, float]:
    """The plain two-level bootstrap, which the interval stands in for."""
    seeds, n = values.shape
    means = []
    for _ in range(draws):
        some, which = rng.integers(seeds, size=seeds), rng.integers(n, size=n)
        means.append(values[np.ix_(some, which)].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_the_interval_covers_what_it_says() -> None:
    assert 0.885 <= coverage(120, 5, 0.1, 0.6, 0.3) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "spreads", [(0.1, 0.6, 0.3), (0.3, 0.1, 0.3), (0.0, 0.6, 0.3), (0.0, 0.0, 0.6), (0.05, 0.3, 0.6)]
)
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_whatever_varies(seeds: int, spreads: tuple[float, float, float]) -> None:
    """Seeds, images, both or neither; with three seeds it may miss a little more."""
    found = coverage(600, seeds, *spreads)
    print(f"{seeds} seeds, {spreads}: {found:.3f}")
    assert (0.90 if seeds == FEWEST_SEEDS else 0.925) <= found <= 0.98


def test_the_plain_bootstrap_is_too_sure_of_itself() -> None:
    """The control: where seeds vary, five of them are too few for percentiles."""
    rng, found, times = np.random.default_rng(3), 0, 150
    for _ in range(times):
        low, high = percentile(experiment(rng, 5, 0.3, 0.1, 0.1), rng)
        found += low <= 0 <= high
    assert found / times < 0.91


def test_an_interval_over_images_alone_misses_another_training() -> None:
    """The cheapest cheat: seeds taken for more images. It must be far narrower, and wrong."""
    rng, wrong, times = np.random.default_rng(4), 0, 60
    for time in range(times):
        values = experiment(rng, 5, 0.3, 0.1, 0.3)
        one = over_seeds(values, IMAGES, LABELS, (time,))
        error = 1.96 * values.std() / math.sqrt(values.size)
        assert 2 * error < one.high - one.low
        wrong += abs(values.mean()) > error
    assert wrong / times > 0.5


def test_no_effect_is_found_at_the_rate_of_chance_and_a_real_one_is_found() -> None:
    rng = np.random.default_rng(5)
    times = 100
    null = [over_seeds(experiment(rng, 5, 0.1, 0.3, 0.3), IMAGES, LABELS, (i,)).p for i in range(times)]
    real = [over_seeds(experiment(rng, 5, 0.1, 0.3, 0.3, mean=0.5), IMAGES, LABELS, (i,)).p for i in range(20)]
    assert sum(p < 0.05 for p in null) / times < 0.12
    assert all(p < 0.05 for p in real)


def test_seeds_that_differ_by_noise_alone() -> None:
    """Signs disagree, so nothing is said, however many images there are."""
    noise = np.array([0.3, -0.28, 0.1, -0.2, 0.15])
    one = over_seeds(np.repeat(noise[:, None], len(IMAGES), axis=1), IMAGES, LABELS)
    assert one.low < 0 < one.high
    assert one.p > 0.5
    assert one.p_seeds > 0.5
    assert (one.seeds, one.alike) == (5, 3)


def test_pairs_take_out_what_images_and_seeds_share() -> None:
    """Each arm alone varies with its images; the difference does not."""
    rng = np.random.default_rng(6)
    shared = experiment(rng, 5, 0.2, 1.0, 0.0)
    frozen = shared + 0.3 + rng.normal(0, 0.1, shared.shape)
    learnable = shared + rng.normal(0, 0.1, shared.shape)
    difference = over_seeds(paired(learnable, frozen), IMAGES, LABELS)
    arms = [over_seeds(arm, IMAGES, LABELS) for arm in (frozen, learnable)]
    apart = math.hypot(*(arm.high - arm.mean for arm in arms))
    assert difference.high - difference.mean < 0.2 * apart
    assert difference.high < 0
    assert difference.mean == pytest.approx(arms[1].mean - arms[0].mean)
    assert apart > 0.3  # apart, the same experiment says nothing
    wrong = paired(learnable, frozen[:, rng.permutation(len(IMAGES))])
    assert over_seeds(wrong, IMAGES, LABELS).high - difference.mean > difference.high - difference.mean


def test_phrases_of_one_image_count_once() -> None:
    """An image shown five times says no more than once."""
    rng = np.random.default_rng(8)
    values = experiment(rng, 5, 0.02, 0.6, 0.0)
    once = over_seeds(values, IMAGES)
    five = over_seeds(np.repeat(values, 5, axis=1), [image for image in IMAGES for _ in range(5)])
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_the_mean_is_the_mean_of_class_means_of_those_that_have_a_value() -> None:
    values = np.array([[1.0, 3.0, 5.0], [1.0, np.nan, 6.0], [2.0, 2.0, np.nan], [np.nan] * 3])
    one = over_seeds(values, list("abc"), ["x", "x", "y"])
    assert one.by_seed == pytest.approx([macro_mean(row[None], ["x", "x", "y"]).item() for row in values[:3]])
    assert one.mean == pytest.approx((3.5 + 3.5 + 2.0) / 3)
    assert one.seeds == 3


def test_few_seeds_have_no_interval_and_no_p() -> None:
    two = over_seeds(np.array([1.0, 2.0]))
    assert (two.mean, two.seeds, two.p_seeds) == (1.5, 2, 0.5)
    assert all(map(math.isnan, (two.low, two.high, two.p)))
    none = over_seeds(np.array([math.nan, math.nan]))
    assert math.isnan(none.mean)
    assert none.seeds == 0
    assert math.isnan(over_seeds(np.array([1.0, 1.0, 1.0])).low)  # nothing varies: nothing says how much it would


def test_five_seeds_cannot_say_less_than_a_sixteenth_without_a_shape() -> None:
    assert over_seeds(np.array([1.0, 1.1, 0.9, 1.05, 0.95])).p_seeds == pytest.approx(2 / 2**5)


def test_the_draws_have_an_address() -> None:
    values = experiment(np.random.default_rng(9), 5, 0.1, 0.6, 0.3)
    assert over_seeds(values, IMAGES, LABELS, ("a",)) == over_seeds(values, IMAGES, LABELS, ("a",))
    other = over_seeds(values, IMAGES, LABELS, ("b",))
    assert other.low != over_seeds(values, IMAGES, LABELS, ("a",)).low
    assert other.high == pytest.approx(over_seeds(values, IMAGES, LABELS, ("a",)).high, abs=0.03)


def test_runs_are_compared_where_both_have_come_down_to_a_distance() -> None:
    """A learnable encoder that trades grounding for distance, and one that is merely further on the same path."""
    frozen = [(40.0, 0.0), (20.0, 1.0), (16.0, 1.2)]
    further = [(40.0, 0.0), (20.0, 1.0), (16.0, 1.2), (12.0, 0.6)]
    trades = [(40.0, 0.0), (20.0, 0.5), (12.0, 0.6)]
    level = common_distance([frozen, further, trades])
    assert level == 16.0
    assert score_at(further, level) == pytest.approx(score_at(frozen, level))  # at the end it looked 0.6 worse
    assert score_at(trades, level) == pytest.approx(0.55)
    assert math.isnan(score_at(frozen, 12.0))


def test_ranges_that_do_not_overlap_have_no_common_distance() -> None:
    assert math.isnan(common_distance([[(40.0, 0.0), (30.0, 1.0)], [(25.0, 0.0), (10.0, 1.0)]]))
    assert math.isnan(common_distance([]))
    assert math.isnan(score_at([(25.0, 0.0), (10.0, 1.0)], 30.0))
    assert math.isnan(score_at([(25.0, 0.0)], math.nan))
