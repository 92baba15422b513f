"""When a prototype is drawn: the planted timestep is found, and the controls expose what blur and any change would do."""

import math

import numpy as np
import pytest
import torch

from meddiff.attribution.emergence import blur_of, emergence_curves, half_time, half_time_of, random_twin
from meddiff.attribution.inversion import ddim_grid, edited
from meddiff.attribution.prototype_edits import inverted, watch
from tests.builders.planted_prototypes import WHOLE, planted_patronus, planted_pictures

GRID = ddim_grid(25)


def curves(heard: int, prototype: int = 1) -> dict[str, np.ndarray]:
    model = planted_patronus(heard)
    draws = torch.Generator().manual_seed(4)
    given = (torch.rand(8, 6, generator=draws) < 0.4).float()
    given[:, prototype] = 0.0
    x0 = planted_pictures(model, given)
    start = inverted(model, x0, GRID)
    encoders = (model.prototypes, random_twin(model.prototypes))
    base = watch(model, start.noise, start.activations, GRID, encoders)
    drawn = watch(model, start.noise, edited(start.activations, {prototype: WHOLE}), GRID, encoders)
    others = planted_pictures(model, (torch.rand(128, 6, generator=draws) < 0.4).float())
    blurred = (model.prototypes, blur_of(others), model.noise_schedule)
    return emergence_curves(prototype, start.activations, drawn, base, blurred, GRID)


@pytest.fixture(scope="module")
def early() -> dict[str, np.ndarray]:
    return curves(1000)


@pytest.fixture(scope="module")
def late() -> dict[str, np.ndarray]:
    return curves(400)


def test_the_planted_timestep_is_found(early: dict[str, np.ndarray], late: dict[str, np.ndarray]) -> None:
    found = half_time_of(GRID, late["paired"])
    assert 300 < found.value <= 440  # listened to from 400 on; the grid has steps of 40
    assert found.low <= found.value <= found.high
    assert half_time_of(GRID, early["paired"]).value > 900
    assert np.abs(late["paired"][:10]).max() < 1e-6  # nothing is edited before


def test_blur_is_known_for_what_it_is(early: dict[str, np.ndarray], late: dict[str, np.ndarray]) -> None:
    """The low-pass control rises at the same timestep in both: it knows the finished pictures only."""
    blurred = [half_time_of(GRID, one["low_pass"]).value for one in (early, late)]
    assert abs(blurred[0] - blurred[1]) < 150
    assert abs(blurred[1] - half_time_of(GRID, late["paired"]).value) > 100


def test_another_prototype_is_not_raised(late: dict[str, np.ndarray]) -> None:
    assert late["paired"][-1].mean() > 1
    assert abs(late["random"][-1].mean()) < 0.3 * late["paired"][-1].mean()


def test_a_random_twin_has_the_same_numbers() -> None:
    model = planted_patronus()
    twin = random_twin(model.prototypes)
    for own, other in zip(model.prototypes.vectors, twin.vectors, strict=True):
        assert torch.equal(own.sort().values, other.sort().values)
    assert not torch.equal(model.prototypes.vectors, twin.vectors)
    assert torch.equal(random_twin(model.prototypes).vectors, twin.vectors)


def test_the_blur_is_that_of_the_best_linear_estimate() -> None:
    """Of white pictures of deviation d the estimate at noise n is the picture times d^2 a^2 / (d^2 a^2 + n^2)."""
    images = 2.0 + 0.5 * torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    blur = blur_of(images)
    found = blur.at(images[:5], 0.6, 0.8) - blur.mean
    share = 0.25 * 0.36 / (0.25 * 0.36 + 0.64)
    assert float(((images[:5] - blur.mean) * found).sum() / (images[:5] - blur.mean).square().sum()) == pytest.approx(
        share, rel=0.1
    )
    assert torch.allclose(blur.at(images[:5], 1.0, 0.0), images[:5], atol=1e-5)


def test_half_times_of_what_does_not_rise() -> None:
    assert math.isnan(half_time([900, 600, 300], np.array([0.0, 0.0, -1.0])))
    assert half_time([900, 600, 300], np.array([1.0, 1.0, 1.0])) == 900
    noise = np.random.default_rng(0).normal(0, 1, (3, 50))
    assert math.isnan(half_time_of([900, 600, 300], noise).value)
