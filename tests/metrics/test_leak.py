"""The shortcut index: planted leaks are found, what one model has and both share is not, what moves nothing has no number."""

import math

import numpy as np
import pytest

from meddiff.metrics.leak import Moves, leak_of, moved, shortcut_index


def edited(slope: float, images: int = 200, seed: int = 0, effect: float = 1.0) -> Moves:
    """Planted: A moves by ``effect``, B by ``slope`` of it, each with noise of its own."""
    rng = np.random.default_rng(seed)
    own = effect * rng.uniform(0.5, 1.5, images)
    noise = rng.normal(0, 0.3, (2, images))
    return Moves([f"image-{one}" for one in range(images)], own + noise[0] * 0.3, slope * own + noise[1])


@pytest.mark.parametrize("slope", [0.0, 0.4, -0.5])
def test_a_planted_leak_is_found_and_its_interval_covers_it(slope: float) -> None:
    found = leak_of(edited(slope))
    assert found.value == pytest.approx(slope, abs=0.1)
    assert found.low < slope < found.high
    assert found.high - found.low < 0.25


def test_a_model_that_moves_the_finding_alone_has_no_index() -> None:
    found = shortcut_index(edited(0.0, seed=1), edited(0.0, seed=2))
    assert found.low < 0 < found.high


def test_a_leak_of_both_models_is_no_shortcut() -> None:
    """The cheapest cheat: a scorer that mixes A and B up gives every model a leak."""
    biased, balanced = edited(0.6, seed=1), edited(0.6, seed=2)
    assert leak_of(biased).low > 0.4
    found = shortcut_index(biased, balanced)
    assert found.low < 0 < found.high


def test_the_planted_index_is_found() -> None:
    found = shortcut_index(edited(0.7, seed=1), edited(0.1, seed=2))
    assert found.value == pytest.approx(0.6, abs=0.1)
    assert 0 < found.low < 0.6 < found.high


def test_images_are_drawn_together_for_both_models() -> None:
    """What is odd about a picture is odd for both: noise that they share cancels, and the interval is the narrower."""
    rng = np.random.default_rng(3)
    own, shared = rng.uniform(0.5, 1.5, 200), rng.normal(0, 1, 200)
    keys = list(range(200))
    one, two = Moves(keys, own, 0.5 * own + shared), Moves(keys, own, shared)
    together = shortcut_index(one, two)
    apart = shortcut_index(one, Moves([-key - 1 for key in keys], own, shared))
    assert together.high - together.low < 0.1 * (apart.high - apart.low)


def test_an_edit_that_does_not_move_its_finding_has_no_leak() -> None:
    rng = np.random.default_rng(0)
    still = Moves(list(range(100)), rng.normal(0, 1, 100), rng.normal(5, 1, 100))
    assert moved(still).low < 0 < moved(still).high
    assert all(math.isnan(one) for one in leak_of(still))
    assert math.isnan(shortcut_index(still, edited(0.1)).value)
    # and one that goes the wrong way has none either
    assert math.isnan(leak_of(edited(0.5, effect=-1.0)).value)


def test_a_ratio_of_two_nothings_is_no_leak() -> None:
    """Seen on a model that had hardly been trained: moved by 0.0008, a "leak" of 3.8 with a narrow interval."""
    tiny = edited(3.8, effect=0.0008)
    tiny = Moves(tiny.keys, np.abs(tiny.own) * 0.01, tiny.other)
    assert moved(tiny).low > 0
    assert math.isnan(leak_of(tiny).value)


def test_a_few_images_have_no_interval() -> None:
    found = leak_of(edited(0.5, images=4))
    assert math.isnan(found.value)


def test_the_order_of_images_does_not_matter() -> None:
    moves = edited(0.3)
    order = np.random.default_rng(5).permutation(200)
    shuffled = Moves([moves.keys[place] for place in order], moves.own[order], moves.other[order])
    assert leak_of(shuffled) == pytest.approx(leak_of(moves), rel=1e-9)
