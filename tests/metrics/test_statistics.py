"""Error bars and tests against scipy, scikit-learn, closed forms, and their own nominal rates."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from meddiff.common.draws import generator
from meddiff.metrics.statistics import (
    auroc,
    benjamini_hochberg,
    holm,
    macro_mean,
    micro_mean,
    over_seeds,
    sign_flip_test,
    wilcoxon_test,
)
from meddiff.metrics.summary import summarise


def test_spread_over_seeds_is_numpys_with_n_minus_1():
    values = [0.92, 0.95, 0.87]
    assert over_seeds(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    mean, std = over_seeds([0.5, math.nan])
    assert mean == 0.5
    assert math.isnan(std)
    assert all(math.isnan(value) for value in over_seeds([]))


def test_averages_are_those_of_the_training_summary():
    rng = generator("averages")
    classes = rng.choice(["edema", "pneumonia", "mass"], 60, p=[0.7, 0.2, 0.1]).tolist()
    values = rng.normal(size=60)
    rows = [{"class": c, "cnr": v, "auroc": 0.5, "top1": 1, "miou": 0} for c, v in zip(classes, values, strict=True)]
    expected = summarise(rows)
    assert micro_mean(values[None]).item() == pytest.approx(expected["cnr"])
    assert macro_mean(values[None], classes).item() == pytest.approx(expected["macro_cnr"])


def test_undefined_values_count_in_no_average():
    values = np.array([[1.0, np.nan, 3.0, 8.0], [2.0, 4.0, np.nan, np.nan]])
    assert micro_mean(values).item() == pytest.approx((4.0 + 3.0) / 2)
    assert macro_mean(values, ["a", "a", "b", "c"]).item() == pytest.approx((1 + 3) / 2 / 3 + 3 / 3 + 8 / 3)
    assert math.isnan(micro_mean(np.full((1, 2), np.nan)).item())


def test_weights_repeat_samples():
    values, classes = np.array([[1.0, 2.0, 5.0]]), ["a", "a", "b"]
    weights = np.array([[2.0, 1.0, 1.0], [0.0, 0.0, 3.0]])
    assert micro_mean(values, weights) == pytest.approx([9 / 4, 5.0])
    assert macro_mean(values, classes, weights) == pytest.approx([(4 / 3 + 5) / 2, 5.0])


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auroc_is_scikit_learns_with_ties_and_weights(decimals):
    rng = generator("auroc", decimals)
    labels = rng.random(80) < 0.3
    scores = np.round(rng.normal(size=80) + labels, decimals)
    weights = rng.integers(0, 4, (5, 80)).astype(float)
    assert auroc(scores, labels).item() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    assert auroc(scores, labels, weights) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_one_side_is_undefined():
    assert math.isnan(auroc(np.array([1.0, 2.0]), np.array([True, True])).item())
    assert math.isnan(auroc(np.array([]), np.array([], dtype=bool)).item())


@pytest.mark.parametrize("n", [5, 9])
def test_small_permutation_tests_are_exact_as_scipys(n):
    differences = generator("exact", n).normal(0.4, 1, n)
    theirs = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert sign_flip_test(differences / n, range(n)) == pytest.approx(theirs.pvalue)


def test_exact_permutation_of_groups_is_an_enumeration_of_their_signs():
    differences = np.array([0.5, 0.25, -0.125, 1.0, 0.75, -0.5])
    groups = ["a", "a", "b", "c", "c", "d"]
    sums = [0.75, -0.125, 1.75, -0.5]
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product([1, -1], repeat=4)]
    # Exactly: binary fractions, whose sums do not round, and a share of sixteenths.
    assert sign_flip_test(differences, groups) == np.mean([value >= abs(sum(sums)) for value in flipped])


def test_drawn_permutation_test_agrees_with_the_exact_one():
    differences = generator("drawn").normal(0.5, 1, 13)
    exact = sign_flip_test(differences / 13, range(13), draws=2**13)
    drawn = sign_flip_test(differences / 13, range(13), draws=2**13 - 1)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**13))


def test_equal_differences_count_as_equal_in_spite_of_rounding():
    # All signs equal is one of two most extreme patterns; 0.1 + 0.2 + 0.3 depends on the order of the sum.
    assert sign_flip_test(np.array([0.1, 0.2, 0.3]), list("abc")) == 0.25
    assert sign_flip_test(np.zeros(20), range(20)) == 1.0


def test_p_values_are_uniform_when_pairing_is_shuffled():
    """Two models with the same scores in another order: which is which is a coin toss, so nothing may show."""
    flips, ranks = [], []
    for repeat in range(300):
        rng = generator("null", repeat)
        first, second = rng.normal(1, 1, (2, 30))
        swapped = rng.random(30) < 0.5
        differences = np.where(swapped, second - first, first - second)
        flips.append(sign_flip_test(differences / 30, range(30), draws=199, address=("null", repeat)))
        ranks.append(wilcoxon_test(differences, range(30)))
    for found in (flips, ranks):
        assert stats.kstest(found, "uniform").pvalue > 0.01
        assert 0.02 <= np.mean(np.asarray(found) <= 0.05) <= 0.09


def test_a_true_difference_shows():
    rng = generator("power")
    samples = rng.normal(0, 3, 40)  # hard and easy images, the same for both models
    differences = (samples + 0.5 + rng.normal(0, 0.5, 40)) - (samples + rng.normal(0, 0.5, 40))
    assert sign_flip_test(differences / 40, range(40)) < 0.002
    assert wilcoxon_test(differences, range(40)) < 0.002


def test_wilcoxon_is_scipys_on_image_means():
    differences = np.array([0.5, 0.3, -0.2, 0.9, 0.4, 0.1, -0.6])
    groups = ["a", "a", "b", "c", "d", "e", "f"]
    expected = stats.wilcoxon([0.4, -0.2, 0.9, 0.4, 0.1, -0.6]).pvalue
    assert wilcoxon_test(differences, groups) == pytest.approx(expected, rel=1e-12)
    assert wilcoxon_test(np.zeros(3), list("abc")) == 1.0
    assert math.isnan(wilcoxon_test(np.array([]), []))
    assert math.isnan(sign_flip_test(np.array([]), []))


@pytest.mark.parametrize("n", [4, 9, 30])
def test_wilcoxon_with_ties_is_scipys(n):
    differences = generator("ties", n).integers(-2, 4, n) / 2
    assert wilcoxon_test(differences, range(n)) == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_corrections_against_their_definitions():
    rng = generator("corrections")
    for _ in range(20):
        p = rng.random(8) ** 3
        assert benjamini_hochberg(p.tolist()) == pytest.approx(stats.false_discovery_control(p).tolist())
        # Holm rejects at a level while the k-th smallest p is at most level / (m - k + 1).
        adjusted, order = holm(p.tolist()), np.argsort(p)
        for level in rng.random(50) * 0.3:
            fits = [p[i] <= level / (8 - k) for k, i in enumerate(order)]
            rejected = {order[k] for k in range(8) if all(fits[: k + 1])}
            assert rejected == {i for i in range(8) if adjusted[i] <= level}


def test_corrections_leave_out_what_was_not_tested():
    assert holm([0.02, math.nan, 0.03])[::2] == pytest.approx([0.04, 0.04])
    assert benjamini_hochberg([0.02, math.nan, 0.03])[::2] == pytest.approx([0.03, 0.03])
    assert math.isnan(holm([0.02, math.nan])[1])
    assert holm([]) == []
