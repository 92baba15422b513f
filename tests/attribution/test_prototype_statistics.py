"""Levels of prototypes, and how far an edited vector lies from those of real images."""

import numpy as np
import pytest

from meddiff.attribution.prototype_statistics import mahalanobis, own_levels, spread_of


def test_each_prototype_has_its_own_level() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (2000, 3)) * [0.1, 1.0, 9.0]
    levels = own_levels(values)
    assert levels == pytest.approx([0.0995, 0.995, 8.955], rel=0.02)
    # control: the published level, one maximum of all, lies far outside the range of the first
    assert values.max() > 50 * values[:, 0].max()


def test_real_vectors_lie_at_one_and_an_edit_that_breaks_a_correlation_lies_out() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(0, 1, (400, 1))
    values = 2 + common + 0.1 * rng.normal(0, 1, (400, 4))  # four prototypes that move together
    spread = spread_of(values)
    fresh = 2 + rng.normal(0, 1, (200, 1)) + 0.1 * rng.normal(0, 1, (200, 4))
    assert float(np.median(mahalanobis(spread, fresh))) == pytest.approx(1.0, abs=0.2)
    whole = np.full((1, 4), 4.0)  # all of them two deviations up: seen in real images
    alone = np.array([[4.0, 2.0, 2.0, 2.0]])  # one of them alone: never seen
    assert mahalanobis(spread, alone)[0] > 4 * mahalanobis(spread, whole)[0]


def test_fewer_images_than_prototypes_still_have_a_distance() -> None:
    values = np.random.default_rng(2).normal(0, 1, (20, 50))
    spread = spread_of(values)
    assert np.isfinite(mahalanobis(spread, values)).all()
    assert spread.usual > 0
