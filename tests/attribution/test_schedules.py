"""Lists of timesteps against the published ones, exact arithmetic, and diffusers' own spacing."""

import re
from itertools import pairwise

import pytest
from diffusers import DDIMScheduler

from meddiff.attribution.schedules import (
    SCHEDULES,
    Schedule,
    check_timesteps,
    exponential_early,
    exponential_late,
    following,
    schedule,
    uniform,
)
from meddiff.common.errors import UserError


def test_the_early_list_is_the_one_that_the_authors_kept() -> None:
    found = exponential_early(30, 60)
    assert len(found) == 30
    assert found[:11] == [999, 893, 884, 875, 865, 854, 842, 829, 816, 801, 785]
    assert found[-4:] == [265, 206, 143, 74]


def root_floor(base: int, power: int, root: int) -> int:
    """floor(base^(power / root)) by whole numbers alone."""
    low, high = 1, base
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**root <= base**power else (low, middle - 1)
    return low


@pytest.mark.parametrize("steps", [20, 30, 50])
def test_floors_are_exact_also_where_a_power_is_10_or_100(steps: int) -> None:
    met = set()
    for gamma in (9, 10, 12, 13, 16, 37, 40, 57, 60, 300):
        exact = [root_floor(1000, gamma + k, steps + gamma) for k in range(1, steps + 1)]
        met |= {power for power in exact[:-1] if power in (10, 100)}
        if len(set(exact)) < steps:
            with pytest.raises(UserError, match="twice"):
                exponential_late(steps, gamma)
            continue
        assert exponential_late(steps, gamma) == [999, *reversed(exact[:-1])]
        assert exponential_early(steps, gamma) == [999, *(1000 - power for power in exact[:-1])]
    assert 100 in met, "a list that doubles get wrong must be among them"


@pytest.mark.parametrize("name", ["exponential_early", "exponential_late"])
def test_every_gamma_gives_a_valid_list_or_is_refused_in_one_sentence(name: Schedule) -> None:
    refused: dict[tuple[float, int], str] = {}
    for gamma in (0, 0.5, 1, 2, 5, 10, 17, 30, 60.25, 100, 300, 1e4, 1e9):
        for steps in (1, 7, 30, 50):
            try:
                found = schedule(name, steps, gamma)
            except UserError as error:
                refused[gamma, steps] = str(error)
                continue
            check_timesteps(found)
            assert len(found) == steps
            assert found[0] == 999 or steps == 1
    assert all("\n" not in told and re.fullmatch(r".* twice: take .*\.", told) for told in refused.values())
    assert (1, 30) in refused
    assert (10, 50) in refused
    assert (60.25, 30) not in refused
    assert (1e9, 30) in refused


def test_what_a_refusal_proposes_works() -> None:
    for name in ("exponential_early", "exponential_late"):
        for gamma in (1, 1e6):
            with pytest.raises(UserError, match="take gamma") as caught:
                schedule(name, 30, gamma)
            proposed = int(str(caught.value).rstrip(".").rsplit(" ", 1)[1])
            assert len(schedule(name, 30, proposed)) == 30


def test_a_small_gamma_crowds_the_ends_they_are_named_for() -> None:
    def high(timesteps: list[int]) -> float:
        return sum(t >= 800 for t in timesteps) / len(timesteps)

    assert high(exponential_early(30, 30)) > 0.5 > high(uniform(30)) > high(exponential_late(30, 30))


@pytest.mark.parametrize("steps", [1, 2, 7, 16, 30, 50, 75, 999, 1000])
def test_uniform_is_diffusers_trailing_spacing(steps: int) -> None:
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    found = uniform(steps)
    check_timesteps(found)
    # they add up steps in doubles, which may turn a half the other way
    assert max(abs(a - int(b)) for a, b in zip(found, theirs.timesteps, strict=True)) <= (1000 % steps > 0)
    gaps = [a - b for a, b in pairwise([*found, -1])]
    assert max(gaps) - min(gaps) <= 1 or steps == 1


def test_what_cannot_be_is_refused() -> None:
    for steps in (0, 1001, -3):
        for name in SCHEDULES:
            with pytest.raises(UserError, match=r"steps is .* must be a whole number and lie in \[1, 1,000\]"):
                schedule(name, steps)
    for gamma in (-1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="gamma is"):
            exponential_early(30, gamma)
    with pytest.raises(UserError, match="must be uniform, exponential_early or exponential_late"):
        schedule("late", 30)  # type: ignore[arg-type]
    for wrong, told in (([], "at least one"), ([5, 5], "decreasing"), ([5, 6], "decreasing"), ([1000], "none of")):
        with pytest.raises(UserError, match=told):
            check_timesteps(wrong)


def test_each_timestep_leads_to_the_next_and_the_last_to_the_clean_end() -> None:
    assert following([999, 400, 1]) == [400, 1, -1]
