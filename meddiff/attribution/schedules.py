"""Lists of timesteps to denoise along: even, or crowded where the image is laid out, or where its detail comes.

The exponential lists are those of "Explaining generative diffusion models via visual analysis" (eq. 12-14; spec section
B4): with n = steps + gamma and T training timesteps, the k-th power is floor(T^(k/n)), k = gamma + 1 ... n. ``early``
takes T minus it, behind T - 1; ``late`` takes it as it is, from above, T itself being written T - 1. A small gamma crowds
the timesteps at one end. A large one does not make them even: it moves all of them to the other end. No torch.
"""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Literal, get_args

from meddiff.common.errors import UserError
from meddiff.common.ranges import NOT_NEGATIVE, Range
from meddiff.models.schedule_config import TIMESTEPS

Schedule = Literal["uniform", "exponential_early", "exponential_late"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
#: Of all runs that the authors kept.
GAMMA = 60.0
#: What follows the last timestep: the clean image.
CLEAN = -1
#: Digits that powers are computed with. Four lists of whole gammas below 300 meet an exact 10 or 100, which doubles put on
#: either side of the floor; whatever is this near a whole number is that number.
_DIGITS, _NEAR = 60, Decimal("1e-40")
#: Gammas that a refused list proposes the nearest of.
_PROPOSED = range(1000)


def uniform(steps: int, train_timesteps: int = TIMESTEPS) -> list[int]:
    """Even steps from the last training timestep downwards, as diffusers spaces them when told ``trailing``.

    Raises:
        UserError: no number of steps between 1 and ``train_timesteps``.

    Example:
        >>> uniform(4)
        [999, 749, 499, 249]
    """
    _check_steps(steps, train_timesteps)
    # whole numbers alone; a half goes to the even neighbour, as numpy rounds
    ends = [divmod(train_timesteps * (steps - step), steps) for step in range(steps)]
    return [whole + (2 * rest > steps or (2 * rest == steps and whole % 2)) - 1 for whole, rest in ends]


def exponential_early(steps: int, gamma: float = GAMMA, train_timesteps: int = TIMESTEPS) -> list[int]:
    """Steps that are short at high noise, where the layout is decided.

    Raises:
        UserError: a number out of its range, or steps so short that timesteps repeat.

    Example:
        >>> exponential_early(30)[:4], exponential_early(30)[-1]
        ([999, 893, 884, 875], 74)
    """
    powers = _powers(steps, gamma, train_timesteps)
    timesteps = [train_timesteps - 1, *(train_timesteps - power for power in powers[:-1])]
    return _checked("exponential_early", timesteps, steps, gamma, train_timesteps)


def exponential_late(steps: int, gamma: float = GAMMA, train_timesteps: int = TIMESTEPS) -> list[int]:
    """Steps that are short at low noise, where detail is drawn.

    Raises:
        UserError: a number out of its range, or steps so short that timesteps repeat.

    Example:
        >>> exponential_late(30)[:3], exponential_late(30)[-1]
        ([999, 926, 857], 107)
    """
    timesteps = [min(power, train_timesteps - 1) for power in reversed(_powers(steps, gamma, train_timesteps))]
    return _checked("exponential_late", timesteps, steps, gamma, train_timesteps)


def schedule(name: Schedule, steps: int, gamma: float = GAMMA, train_timesteps: int = TIMESTEPS) -> list[int]:
    """The list of that name; ``uniform`` has no gamma.

    Raises:
        UserError: no such schedule, or one that is refused.
    """
    if name == "uniform":
        return uniform(steps, train_timesteps)
    if name == "exponential_early":
        return exponential_early(steps, gamma, train_timesteps)
    if name == "exponential_late":
        return exponential_late(steps, gamma, train_timesteps)
    raise UserError(f"schedule is {name!r}; it must be {', '.join(SCHEDULES[:-1])} or {SCHEDULES[-1]}.")


def check_timesteps(timesteps: Sequence[int], train_timesteps: int = TIMESTEPS) -> None:
    """Refuse a list that cannot be denoised along.

    Raises:
        UserError: empty, not strictly decreasing, or beyond the training timesteps.
    """
    if not timesteps:
        raise UserError("No timesteps: give at least one.")
    for one in timesteps:
        if not 0 <= one < train_timesteps:
            raise UserError(f"Timestep {one} is none of the {train_timesteps} of training: 0 to {train_timesteps - 1}.")
    for before, after in pairwise(timesteps):
        if after >= before:
            raise UserError(f"Timestep {before} is followed by {after}: give a strictly decreasing list.")


def following(timesteps: Sequence[int]) -> list[int]:
    """What each timestep is left for: the next of the list, and :data:`CLEAN` after the last.

    Example:
        >>> following([999, 499])
        [499, -1]
    """
    return [*timesteps[1:], CLEAN]


def _powers(steps: int, gamma: float, train_timesteps: int) -> list[int]:
    """floor(T^(k / n)), k = gamma + 1 ... n, rising; the last is T."""
    _check_steps(steps, train_timesteps)
    if not NOT_NEGATIVE.holds(gamma):
        raise UserError(f"gamma is {gamma}; it must {NOT_NEGATIVE}.")
    with localcontext() as context:
        context.prec = _DIGITS
        # as it is written: 0.1 is a tenth
        shift, base = Decimal(str(gamma)), Decimal(train_timesteps).ln()
        return [_floor((base * (shift + step) / (shift + steps)).exp()) for step in range(1, steps + 1)]


def _floor(value: Decimal) -> int:
    nearest = value.to_integral_value()
    return int(nearest) if abs(value - nearest) < _NEAR else int(value)


def _check_steps(steps: int, train_timesteps: int) -> None:
    rule = Range(1, train_timesteps, whole=True)
    if not rule.holds(steps):
        raise UserError(f"steps is {steps}; it must {rule}.")


def _checked(name: Schedule, timesteps: list[int], steps: int, gamma: float, train_timesteps: int) -> list[int]:
    repeated = _repeated(timesteps)
    if repeated is None:
        return timesteps
    others = [other for other in _PROPOSED if _surely_fits(steps, other, train_timesteps)]
    advice = f"take gamma {min(others, key=lambda other: abs(other - gamma))}" if others else "take fewer steps"
    raise UserError(f"{name} with {steps} steps and gamma {gamma:g} comes to timestep {repeated} twice: {advice}.")


def _surely_fits(steps: int, gamma: int, train_timesteps: int) -> bool:
    """Powers more than 1 apart have floors of their own; the lowest stay clear of T - 1 as the highest do."""
    ratio = train_timesteps ** (1 / (steps + gamma))
    lowest = ratio ** (gamma + 1)
    return lowest >= 2 and lowest * (ratio - 1) > 1 and train_timesteps * (1 - 1 / ratio) > 1


def _repeated(timesteps: Sequence[int]) -> int | None:
    return next((one for one, other in pairwise(timesteps) if one == other), None)
