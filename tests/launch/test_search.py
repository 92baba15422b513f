"""Grid and random search against what `sweeps` 0.3.0 suggested (golden/sweeps_0_3_0.json)."""

import itertools
import json
import math
import random
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.launch.parameters import flat, same
from meddiff.launch.search import axes, draw, grid, next_of_grid, quantile, random_point
from meddiff.launch.sweep_folder import settings_to_try

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sweeps_0_3_0.json").read_text())


def close(found: object, wanted: object) -> bool:
    """Equal; floats as far as two ways of computing them are."""
    if isinstance(wanted, float) and isinstance(found, float):
        return found == wanted or math.isclose(found, wanted, rel_tol=1e-12, abs_tol=1e-13)
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize("case", GOLDEN["grid"], ids=lambda case: case["name"])
def test_grid_suggests_what_w_and_b_suggests(case):
    parameters = flat(case["parameters"])
    done = [{name: given["value"] for name, given in run.items()} for run in case["done"]]
    if isinstance(case["suggestions"], str):
        with pytest.raises(UserError, match=r"^parameters\.a: a grid needs"):
            next_of_grid(parameters, done)
        return
    for wanted in case["suggestions"]:
        found = next_of_grid(parameters, done)
        assert json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)
        if found is not None:
            done.append(found)


def test_a_grid_is_as_long_as_its_axes_and_has_no_point_twice():
    parameters = flat({"b": {"values": [1, 2, 2]}, "a": {"min": 0, "max": 4}, "c": {"value": "x"}})
    points = list(grid(parameters))
    assert len(points) == math.prod(map(len, axes(parameters))) == 10
    assert len({same(point) for point in points}) == 10
    assert [point["a"] for point in points] == sorted(point["a"] for point in points)  # the first name is the slowest


def test_random_draws_are_those_of_w_and_b():
    case, _ = GOLDEN["random"]
    uniforms = random.Random(0)
    for wanted in case["suggestions"]:
        found = draw(flat(case["parameters"]), iter(lambda: uniforms.uniform(0, 1), None))
        assert found.keys() == wanted.keys()
        assert all(close(found[name], wanted[name]) for name in wanted), (found, wanted)


def test_constants_draw_too_and_names_are_drawn_in_sorted_order():
    case, drawn = GOLDEN["random"]
    assert [".".join(path) for path in flat(case["parameters"])] == drawn["names"]
    found = draw(flat(case["parameters"]), iter(drawn["uniforms"]))
    assert all(close(found[name], case["suggestions"][0][name]) for name in found)
    assert not close(draw(flat(case["parameters"]), iter(drawn["uniforms"][::-1]))["u"], found["u"])  # order matters


@pytest.mark.parametrize("case", GOLDEN["ppf"], ids=lambda case: case["name"])
def test_quantiles_are_those_of_w_and_b(case):
    (parameter,) = flat({"x": case["config"]}).values()
    for at, wanted in zip(case["at"], case["values"], strict=True):
        assert close(quantile(parameter, at), wanted), (at, quantile(parameter, at), wanted)


def test_a_random_point_hangs_on_seed_and_number_alone():
    parameters = flat({"u": {"min": 0.0, "max": 1.0}, "c": {"values": ["a", "b", "c"]}})
    points = [random_point(parameters, 0, number) for number in range(1, 9)]
    random.seed(1)
    assert [random_point(parameters, 0, number) for number in range(8, 0, -1)] == points[::-1]
    assert len({same(point) for point in points}) == 8
    assert points[0] != random_point(parameters, 1, 1)


@pytest.mark.parametrize(("kind", "low", "high"), [("q_log_normal", 0, 30), ("q_beta", 0, 1)])
def test_kinds_without_a_golden_step_within_their_range(kind, low, high):
    (parameter,) = flat({"x": {"distribution": kind, "q": 0.5}}).values()
    drawn = [quantile(parameter, at) for at in (0.05, 0.5, 0.95)]
    assert all(low <= value <= high and (value / 0.5) == round(value / 0.5) for value in drawn)
    assert all(first <= second for first, second in itertools.pairwise(drawn))


def test_settings_to_try_hold_every_choice_and_the_ends_of_ranges():
    parameters = flat({
        "a": {"values": ["x", "y", "z"]}, "b": {"value": 7}, "n": {"min": 1, "max": 1_000_000_000},
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    })  # fmt: skip
    settings = settings_to_try(parameters)
    assert [one["a"] for one in settings] == ["x", "y", "z"]
    assert {one["b"] for one in settings} == {7}
    assert settings[0]["n"] < 2_000_000 < 998_000_000 < settings[1]["n"]
    assert settings[0]["lr"] < 2e-5
    assert settings[1]["lr"] > 5e-2
