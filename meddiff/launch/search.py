"""Grid and random search as `sweeps` 0.3.0 does them, the latter under addressed draws. Source: own (spec, section 4.1)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.launch.parameters import Parameter, Path, Values, nested, same

#: What a grid can be made of.
GRID_KINDS = ("constant", "categorical", "int_uniform", "q_uniform")


def grid_problems(parameters: Mapping[Path, Parameter]) -> list[str]:
    """A sentence for each parameter that has no list of values."""
    return [
        f"parameters.{'.'.join(path)}: a grid needs value, values, whole min and max, or q_uniform, not {one.kind}."
        for path, one in parameters.items()
        if one.kind not in GRID_KINDS
    ]


def grid(parameters: Mapping[Path, Parameter]) -> Iterator[Values]:
    """Every point once: the first name in sorted order varies slowest, values come in the order of the file.

    Raises:
        UserError: a parameter that is no list of values.
    """
    for values in itertools.product(*axes(parameters)):
        yield nested(dict(zip(parameters, values, strict=True)))


def axes(parameters: Mapping[Path, Parameter]) -> list[list[object]]:
    """The values of each parameter, once each.

    Raises:
        UserError: a parameter that is no list of values.
    """
    problems = grid_problems(parameters)
    if problems:
        raise UserError(*problems)
    return [list({same(value): value for value in axis(one)}.values()) for one in parameters.values()]


def axis(parameter: Parameter) -> Sequence[object]:
    """The values of a parameter that a grid can be made of, in their order."""
    if parameter.kind == "constant":
        return [parameter.options["value"]]
    if parameter.kind == "categorical":
        return parameter.choices
    if parameter.kind == "int_uniform":
        return list(range(int(parameter.of("min")), int(parameter.of("max")) + 1))
    steps = np.arange(parameter.of("min"), parameter.of("max"), parameter.of("q"))  # without max, as W&B
    return [one.item() for one in steps]


def next_of_grid(parameters: Mapping[Path, Parameter], done: Sequence[Values]) -> Values | None:
    """The first point that no run has had, in whatever state it is; None when there is none left."""
    had = {same(values) for values in done}
    return next((point for point in grid(parameters) if same(point) not in had), None)


def random_point(parameters: Mapping[Path, Parameter], seed: int, number: int) -> Values:
    """The point of the run ``number``: it depends on the seed of the sweep and that number alone.

    W&B draws from the global generator, so a sweep there is another one each time.
    """
    draws = generator(seed, "sweep", number)
    return draw(parameters, iter(draws.random, None))


def draw(parameters: Mapping[Path, Parameter], uniforms: Iterator[float]) -> Values:
    """One point: for each parameter in sorted order (a constant, too) one uniform number through its quantiles."""
    return nested({path: quantile(one, float(next(uniforms))) for path, one in parameters.items()})


def quantile(parameter: Parameter, at: float) -> object:
    """The value below which a share ``at`` of the draws lies.

    Args:
        at: from 0 to 1.
    """
    from scipy import stats  # a second of imports that a grid does not need

    kind, options = parameter.kind, parameter.options
    if kind == "constant":
        return options["value"]
    if kind == "categorical":
        return parameter.choices[int(stats.randint.ppf(at, 0, len(parameter.choices)))]
    if kind == "categorical_w_probabilities":
        sums = np.cumsum(cast("Sequence[float]", options["probabilities"]))
        return parameter.choices[int(np.argmin(at >= sums))]
    if kind == "int_uniform":
        return int(stats.randint.ppf(at, int(parameter.of("min")), int(parameter.of("max")) + 1))
    if "uniform" in kind:
        value = _uniform(kind, parameter, at)
    elif "beta" in kind:
        value = stats.beta.ppf(at, parameter.of("a"), parameter.of("b"))
    else:
        value = stats.norm.ppf(at, parameter.of("mu"), parameter.of("sigma"))
        value = np.exp(value) if "log_normal" in kind else value
    if not kind.startswith("q_"):
        return float(value)
    step = parameter.of("q")
    value = np.round(value / step) * step
    if not isinstance(options["q"], int):
        return float(value)
    with np.errstate(invalid="ignore"):  # minus infinity, of a normal one at 0, becomes the least integer as with W&B
        return int(np.float64(value).astype(int))


def _uniform(kind: str, parameter: Parameter, at: float) -> float:
    low, high = parameter.of("min"), parameter.of("max")
    if "log" not in kind:
        return low + at * (high - low)
    if kind.startswith("inv_"):
        low, high = float(-np.log(high)), float(-np.log(low))
        return float(np.exp(-(low + (1 - at) * (high - low))))
    low, high = float(np.log(low)), float(np.log(high))
    return float(np.exp(low + at * (high - low)))
