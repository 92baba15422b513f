"""Bayes and several objectives: Optuna, rebuilt from our own list of runs before each question. Source: own (spec, section 5).

Nothing of Optuna's is stored: its journal does not survive a torn last line. The sampler's seed hangs on the seed of the
sweep and the number of runs so far, so that a killed sweep goes on with the same questions. `method: bayes` is Optuna's TPE
here, and a Gaussian process on W&B's server.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.launch.parameters import Parameter, Path, Values, is_int, nested

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: Optuna takes seeds of so many bits.
SEED_BITS = 32


@dataclass(frozen=True)
class Trial:
    """A run as Optuna hears of it.

    Attributes:
        values: its parameters.
        state: complete, fail (it ended without the objectives) or running (also: to go on).
        objectives: a number each, of complete ones.
    """

    values: Values
    state: Literal["complete", "fail", "running"]
    objectives: Sequence[float] = ()


def need_optuna() -> None:
    """Refuse before any run where Optuna is not installed.

    Raises:
        UserError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError(
            "method bayes or custom needs Optuna, which is not installed: pip install 'meddiff-tradeoff[search]'."
        ) from None


def distribution(parameter: Parameter) -> "BaseDistribution":
    """The parameter as Optuna has it, by the mapping of W&B's own Optuna scheduler.

    Raises:
        UserError: Optuna has nothing like it.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, options = parameter.kind, parameter.options
    if kind == "constant":
        return CategoricalDistribution([cast("str", options["value"])])
    if kind == "categorical":
        return CategoricalDistribution(cast("Sequence[str]", parameter.choices))
    if kind not in ("int_uniform", "uniform", "log_uniform_values", "q_uniform", "q_log_uniform_values"):
        raise UserError(f"Optuna has no {kind}: take another distribution, or method random.")
    low, high = parameter.of("min"), parameter.of("max")
    if kind == "int_uniform":
        return IntDistribution(int(low), int(high))
    if kind == "uniform":
        return FloatDistribution(low, high)
    if kind == "log_uniform_values":
        return FloatDistribution(low, high, log=True)
    step = parameter.of("q")
    if kind == "q_log_uniform_values":
        if step == 1 and low >= 1:
            return IntDistribution(int(low), int(high), log=True)
        return FloatDistribution(low, high, log=True)  # it knows no steps there: q is left out
    if all(is_int(one) or (float(one).is_integer() and one == step) for one in (low, high, step)) and is_int(low):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(low, high, step=step)


def next_point(
    parameters: Mapping[Path, Parameter], goals: Sequence[str], trials: Sequence[Trial], seed: int
) -> Values:
    """The parameters of the next run.

    Args:
        parameters: of the file.
        goals: minimize or maximize, one an objective.
        trials: of every run so far, in the order of their numbers.
        seed: of the sweep.
    """
    import optuna

    names = {".".join(path): path for path in parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lists are choices, and that constant_liar is young
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        spaces = {name: distribution(parameters[path]) for name, path in names.items()}
        sampler = optuna.samplers.TPESampler(
            seed=torch_seed(seed, "sweep", len(trials)) % 2**SEED_BITS, constant_liar=True
        )
        directions = [optuna.study.StudyDirection[goal.upper()] for goal in goals]
        study = optuna.create_study(directions=directions, sampler=sampler)
        for one in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: _at(one.values, path) for name, path in names.items()},
                    distributions=spaces,
                    values=list(one.objectives) if one.state == "complete" else None,
                    state=optuna.trial.TrialState[one.state.upper()],
                )
            )
        asked = study.ask(spaces)
    return nested({path: asked.params[name] for name, path in names.items()})


def _at(values: Values, path: Path) -> object:
    found: object = values
    for name in path:
        found = cast("Values", found)[name]
    return found


def front(points: Sequence[Sequence[float]], goals: Sequence[str]) -> list[int]:
    """Places of the points that no other is better than: as good everywhere and better somewhere.

    Example:
        >>> front([(1.0, 5.0), (2.0, 6.0), (3.0, 4.0)], ["minimize", "maximize"])
        [0, 1]
    """
    signs = [-1.0 if goal == "maximize" else 1.0 for goal in goals]
    signed = [[sign * value for sign, value in zip(signs, point, strict=True)] for point in points]
    return [
        place
        for place, mine in enumerate(signed)
        if not any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in signed)
    ]
