"""95 % intervals: against closed forms, their own coverage, and what they must not say."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.interval_coverage import FIGURES, coverage
from meddiff.common.draws import generator
from meddiff.metrics.intervals import FEWEST, area_interval, mean_interval, pair_interval
from meddiff.metrics.statistics import auroc


def nothing(interval: tuple[float, float]) -> bool:
    return all(math.isnan(end) for end in interval)


def test_one_value_a_group_is_students_interval():
    values = generator("t").normal(size=12)
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert mean_interval(values[None], range(12)) == pytest.approx(expected)


def test_equal_groups_are_students_interval_of_their_means():
    means, inner = generator("groups").normal(size=(2, 9))
    values = (means[:, None] + np.stack([inner, -inner], axis=1)).ravel()
    expected = stats.t.interval(0.95, 8, means.mean(), stats.sem(means))
    assert mean_interval(values[None], np.repeat(np.arange(9), 2).tolist()) == pytest.approx(expected)


def test_classes_of_their_own_images_are_welchs_sum():
    rng = generator("welch")
    a, b = rng.normal(size=7), 5 + 3 * rng.normal(size=10)
    parts = [x.var(ddof=1) / len(x) / 4 for x in (a, b)]
    half = stats.t.ppf(0.975, _satterthwaite_equal(7, 10)) * math.sqrt(sum(parts))
    middle = (a.mean() + b.mean()) / 2
    values, classes = np.concatenate([a, b]), ["a"] * 7 + ["b"] * 10
    assert mean_interval(values[None], range(17), classes) == pytest.approx((middle - half, middle + half))


def _satterthwaite_equal(m: int, n: int) -> float:
    """Degrees of freedom where both classes had the same variance."""
    return (1 / m + 1 / n) ** 2 / (1 / m**2 / (m - 1) + 1 / n**2 / (n - 1))


def test_seeds_are_averaged_and_a_missing_value_counts_for_its_seed_alone():
    rng = generator("seeds")
    values = rng.normal(size=(3, 20))
    assert mean_interval(values, range(20)) == pytest.approx(mean_interval(values.mean(axis=0)[None], range(20)))
    values[0, 3] = math.nan
    low, high = mean_interval(values, range(20))
    middle = (np.nanmean(values[0]) + values[1].mean() + values[2].mean()) / 3
    assert (low + high) / 2 == pytest.approx(middle)
    values[:, 7] = math.nan  # a sample that no seed scored is none
    kept = np.delete(np.arange(20), 7)
    assert mean_interval(values, range(20)) == pytest.approx(mean_interval(values[:, kept], kept.tolist()))


def test_a_share_of_single_images_is_wilsons():
    for hits in (0, 1, 9, 20):
        values = (np.arange(20) < hits).astype(float)
        expected = stats.binomtest(hits, 20).proportion_ci(0.95, "wilson")
        assert mean_interval(values[None], range(20), share=True) == pytest.approx(tuple(expected))


def test_images_that_say_the_same_several_times_say_it_once():
    values = (np.arange(20) < 8).astype(float)
    once, thrice = (mean_interval(np.repeat(values, k)[None], np.repeat(range(20), k), share=True) for k in (1, 3))
    assert thrice == pytest.approx(once, abs=0.02)
    independent = mean_interval(np.repeat(values, 3)[None], range(60), share=True)
    assert independent[1] - independent[0] < 0.7 * (once[1] - once[0])


@pytest.mark.parametrize("groups", range(1, FEWEST))
def test_too_few_groups_have_none(groups):
    values = np.arange(20.0)
    names = [i % groups for i in range(20)]
    assert nothing(mean_interval(values[None], names))
    assert nothing(mean_interval((values > 9)[None].astype(float), names, share=True))
    assert nothing(
        pair_interval(values, names, [name + 1 for name in names]) if groups < FEWEST - 1 else (math.nan,) * 2
    )


def test_a_class_with_one_image_has_none_and_so_has_a_mean_over_it():
    values = generator("single").normal(size=12)
    assert nothing(mean_interval(values[None], range(12), [f"c{i}" for i in range(12)]))
    assert nothing(mean_interval(values[None], range(12), ["a"] * 11 + ["b"]))
    assert nothing(mean_interval(np.ones((1, 8)), range(8)))
    assert nothing(mean_interval(np.full((1, 8), math.nan), range(8)))
    assert nothing(mean_interval(np.zeros((1, 0)), []))


def test_an_area_of_few_positives_or_without_overlap_has_none():
    scores = generator("area").normal(size=40)

    def interval(scores: np.ndarray, positives: int) -> tuple[float, float]:
        labels = np.arange(40) < positives
        area = float(auroc(scores, labels)[0])
        return area_interval(lambda w: auroc(scores, labels, w), area, range(40), labels.tolist())

    assert nothing(interval(scores, 9))
    assert nothing(interval(scores, 31))
    assert nothing(interval(-np.arange(40.0), 20))
    low, high = interval(scores, 20)
    assert 0 < low < high < 1


def test_what_a_pair_has_alone_counts_twice_and_what_its_units_share_once():
    """A jackknife over units errs on the safe side for noise of single pairs, and is right for what units bring along."""
    values = generator("pairs").normal(size=30)
    low, high = pair_interval(values, [f"a{i}" for i in range(30)], [f"b{i}" for i in range(30)])
    once = 2 * stats.t.ppf(0.975, 59) * stats.sem(values)
    assert high - low == pytest.approx(math.sqrt(2) * once, rel=0.03)
    units = generator("units").normal(size=40)
    first, second = zip(*((a, b) for a in range(40) for b in range(a)), strict=True)
    low, high = pair_interval(units[list(first)] + units[list(second)], first, second)
    assert high - low == pytest.approx(2 * 2 * stats.t.ppf(0.975, 39) * stats.sem(units), rel=0.01)


#: 93 to 97 % is what is wanted; the share of so many trials has a standard error of 0.56 points, and two of them are allowed.
REPLICATES, LEAST, MOST = 1500, 0.93 - 0.011, 0.97 + 0.011


@pytest.mark.parametrize("groups", [10, 20])
@pytest.mark.parametrize("figure", FIGURES)
def test_what_is_printed_covers_what_it_says(figure, groups):
    shown, held, _ = coverage(figure, groups, REPLICATES)
    assert shown > 0.9
    assert LEAST <= held <= MOST


def test_the_percentile_bootstrap_would_not():
    """The control: what was printed before fails where the test above passes."""
    for figure in ("CNR, macro", "Top-1, macro", "MS-SSIM of the paper's sets"):
        assert coverage(figure, 10, 200, bootstrap=200)[2] < LEAST


def test_one_image_a_class_was_a_point_and_is_nothing():
    assert coverage("Top-1, macro", 5, 200)[0] < 0.05  # four classes of five images
