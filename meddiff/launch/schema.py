"""What W&B's schema (`sweeps` 0.3.0) refuses in a sweep file, a sentence each. Source: own.

W&B itself only warns, and only after a login. The tests hold this against what its validator said of 29 files.
"""

import math
import re
from collections.abc import Mapping

from meddiff.launch.parameters import DEPRECATED, KINDS, is_int, is_number, kind_of

METHODS = ("grid", "random", "bayes", "custom")
ENGINES = ("optuna", "ax", "wandb")
GOALS = ("minimize", "maximize")
#: Top-level keys and what they hold.
KEYS: dict[str, tuple[type, str]] = {
    "apiVersion": (str, "a text"),
    "kind": (str, "the word sweep"),
    "controller": (dict, "type: local or cloud"),
    "description": (str, "a text"),
    "program": (str, "a file"),
    "job": (str, "a text"),
    "image_uri": (str, "a text"),
    "entity": (str, "a text"),
    "project": (str, "a text"),
    "name": (str, "a text"),
    "method": (str, f"one of {', '.join(METHODS)}"),
    "command": (list, "a list, one word of the command an item"),
    "run_cap": (int, "a number of runs, 1 or more"),
    "metric": (dict, "name and goal"),
    "metrics": (list, "a list of two metrics or more"),
    "scheduler": (dict, "engine: optuna"),
    "early_terminate": (dict, "type: hyperband, and min_iter, or max_iter and s"),
    "parameters": (dict, "a parameter a line"),
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
_HYPERBAND_KEYS = ("type", "max_iter", "min_iter", "s", "eta", "strict")


def schema_problems(config: Mapping[str, object]) -> list[str]:
    """One sentence for each thing that W&B's schema refuses; empty when the file is valid.

    Args:
        config: the file as YAML reads it.
    """
    problems = [
        f"{key}: there is no such key: take it out, or see docs/sweeps.md." for key in config if key not in KEYS
    ]
    for key, (kind, meant) in KEYS.items():
        value = config.get(key)
        if key in config and not (is_int(value) if kind is int else isinstance(value, kind)):
            problems.append(f"{key}: {value!r} is not {meant}.")
    if problems:
        return problems
    if config.get("method") not in METHODS:
        given = repr(config["method"]) if "method" in config else "nothing"
        problems.append(f"method: {given} is given, it must be one of {', '.join(METHODS)}.")
    if config.get("kind", "sweep") != "sweep":
        problems.append(f"kind: {config['kind']!r} is given, it can only be sweep.")
    cap = config.get("run_cap", 1)
    if isinstance(cap, int) and cap < 1:
        problems.append(f"run_cap: {cap} is given, a sweep has 1 run or more.")
    problems += _controller(config.get("controller"))
    problems += _metric("metric", config["metric"]) if "metric" in config else []
    problems += _metrics(config)
    problems += _scheduler(config)
    problems += _hyperband(config.get("early_terminate"))
    parameters = config.get("parameters")
    problems += _parameters(parameters if isinstance(parameters, Mapping) else {}, "parameters")
    return problems


def _controller(controller: object) -> list[str]:
    if controller is None or (isinstance(controller, Mapping) and controller.get("type") in ("local", "cloud")):
        return []
    return ["controller: its type must be local or cloud."]


def _metric(where: str, metric: object) -> list[str]:
    if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
        return [f"{where}: it needs a name, such as grounding/macro_cnr."]
    problems = [f"{where}.{key}: there is no such key: take it out." for key in metric if key not in _METRIC_KEYS]
    if metric.get("goal", "minimize") not in GOALS:
        problems.append(f"{where}.goal: {metric['goal']!r} is given, it must be minimize or maximize.")
    if "target" in metric and not is_number(metric["target"]):
        problems.append(f"{where}.target: {metric['target']!r} is no number{_as_text(metric['target'])}.")
    return problems


def _metrics(config: Mapping[str, object]) -> list[str]:
    metrics = config.get("metrics")
    if not isinstance(metrics, list):
        return []
    if len(metrics) < 2:
        return ["metrics: it lists two metrics or more; a single one is written as metric."]
    problems = [text for place, one in enumerate(metrics) for text in _metric(f"metrics[{place}]", one)]
    if "metric" in config:
        problems.append("metrics: metric is given too: keep one of the two.")
    if config.get("method") != "custom":
        problems.append(
            f"metrics: several need method: custom, not {config.get('method')}, and scheduler: engine: optuna."
        )
    return problems


def _scheduler(config: Mapping[str, object]) -> list[str]:
    scheduler = config.get("scheduler")
    if not isinstance(scheduler, Mapping):
        return []
    known = ("engine", "source", "optimizer", "search_space")
    problems = [f"scheduler.{key}: there is no such key: take it out." for key in scheduler if key not in known]
    engine, method = scheduler.get("engine"), config.get("method")
    if engine not in ENGINES:
        problems.append(f"scheduler.engine: it must be one of {', '.join(ENGINES)}.")
    elif (engine == "wandb") == (method == "custom"):
        fitting = "grid, random or bayes" if engine == "wandb" else "custom"
        problems.append(f"scheduler.engine: {engine} needs method {fitting}, not {method}.")
    if "source" not in scheduler and ("optimizer" in scheduler or "search_space" in scheduler):
        problems.append("scheduler: optimizer and search_space name functions of a file: give source too.")
    if "early_terminate" in config:
        problems.append("early_terminate: it cannot stand beside scheduler: take one of the two out.")
    controller = config.get("controller")
    if isinstance(controller, Mapping) and controller.get("type") == "local":
        problems.append("controller: local cannot stand beside scheduler: take one of the two out.")
    return problems


def _hyperband(stop: object) -> list[str]:
    if not isinstance(stop, Mapping):
        return []
    problems = [
        f"early_terminate.{key}: there is no such key: take it out." for key in stop if key not in _HYPERBAND_KEYS
    ]
    if stop.get("type") != "hyperband":
        problems.append("early_terminate.type: it can only be hyperband.")
    if "min_iter" not in stop and not {"max_iter", "s"} <= set(stop):
        problems.append("early_terminate: it needs min_iter, or max_iter and s.")
    for key in ("min_iter", "max_iter"):
        if key in stop and not is_int(stop[key]):
            problems.append(f"early_terminate.{key}: {stop[key]!r} is no whole number.")
    if is_int(stop.get("min_iter")) and int(stop["min_iter"]) < 1:
        problems.append("early_terminate.min_iter: it must be 1 or more.")
    for key in ("s", "eta"):
        if key in stop and not is_number(stop[key]):
            problems.append(f"early_terminate.{key}: {stop[key]!r} is no number{_as_text(stop[key])}.")
    if is_number(stop.get("eta")) and float(stop["eta"]) <= 1:
        problems.append("early_terminate.eta: it must be more than 1, else every run is stopped at once.")
    return problems


def _parameters(parameters: Mapping[str, object], where: str) -> list[str]:
    if not parameters:
        return [f"{where}: there is none, and a sweep varies something."]
    return [text for name, config in parameters.items() for text in _parameter(name, config, where)]


def _parameter(name: object, config: object, where: str) -> list[str]:
    here = f"{where}.{name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return [f"{here}: a name begins with a letter and has letters, digits, dots, underscores and hyphens only."]
    if not isinstance(config, Mapping):
        return [f"{here}: write value: {config!r}, or values: [..]."]
    if "parameters" in config:
        inner = config["parameters"]
        if set(config) != {"parameters"} or not isinstance(inner, Mapping):
            return [f"{here}: parameters within a parameter are a mapping, and nothing stands beside it."]
        return _parameters(inner, here)
    if config.get("distribution") in DEPRECATED:
        better = f"{config['distribution']}_values"
        return [f"{here}: bounds of {config['distribution']} are exponents, which is no longer taken: write {better}."]
    texts = [key for key, value in config.items() if isinstance(value, str) and key not in ("distribution", "value")]
    if texts:
        return [f"{here}.{key}: {config[key]!r} is a text, not a number{_as_text(config[key])}." for key in texts]
    kind = kind_of(config)
    if kind is None:
        return [
            f"{here}: {dict(config)!r} is no parameter: give value, values, min and max, or a distribution "
            f"({', '.join(KINDS)}) with its keys."
        ]
    return _options(here, kind, config)


def _options(here: str, kind: str, config: Mapping[str, object]) -> list[str]:
    values = config.get("values")
    if "values" in config and (not isinstance(values, list) or not values):
        return [f"{here}.values: give a list of one value or more."]
    problems = []
    for key in config.keys() & {"min", "max", "mu", "sigma", "q", "a", "b"}:
        if not is_number(config[key]):
            problems.append(f"{here}.{key}: {config[key]!r} is no number.")
    if problems:
        return problems
    numbers = {key: value for key, value in config.items() if isinstance(value, int | float)}
    if kind == "int_uniform" and not (is_int(config["min"]) and is_int(config["max"])):
        problems.append(f"{here}: int_uniform needs whole bounds.")
    if "min" in numbers and "max" in numbers and numbers["min"] >= numbers["max"]:
        problems.append(f"{here}: min {numbers['min']} is not less than max {numbers['max']}.")
    if "log_uniform" in kind and numbers["min"] <= 0:
        problems.append(f"{here}.min: a logarithm needs a bound above 0, not {numbers['min']}.")
    if numbers.get("q", 1) <= 0:
        problems.append(f"{here}.q: it must be more than 0.")
    problems += [f"{here}.{key}: it must be 0 or more." for key in ("sigma", "a", "b") if numbers.get(key, 0) < 0]
    return problems + (_probabilities(here, config) if "probabilities" in config else [])


def _probabilities(here: str, config: Mapping[str, object]) -> list[str]:
    given, values = config["probabilities"], config["values"]
    if not isinstance(given, list) or not all(is_number(one) and one >= 0 for one in given):
        return [f"{here}.probabilities: give a list of numbers, 0 or more."]
    if isinstance(values, list) and len(given) != len(values):
        return [f"{here}.probabilities: {len(given)} of them for {len(values)} values."]
    return (
        []
        if math.isclose(sum(given), 1.0, rel_tol=1e-5)
        else [f"{here}.probabilities: they sum to {sum(given)}, not to 1."]
    )


def _as_text(value: object) -> str:
    """What to write instead of a number that YAML took for a text: ``1e-4`` has no dot."""
    try:
        number = float(str(value))
    except ValueError:
        return ""
    mantissa, e, exponent = f"{number:g}".partition("e")
    written = f"{mantissa}{'' if '.' in mantissa or not e else '.0'}{e}{exponent}"
    return f": write {written}" if isinstance(value, str) else ""
