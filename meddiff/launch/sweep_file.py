"""A sweep file: read, and refused with a sentence where it would not do what it says. Source: own (spec, section 3)."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from meddiff.common.bounded import no_yaml, parse_yaml
from meddiff.common.errors import UserError, refuse
from meddiff.common.places import locate
from meddiff.common.text_files import read_text
from meddiff.launch.command import AS_WORDS, macros
from meddiff.launch.hyperband import bands_of
from meddiff.launch.parameters import Parameter, flat
from meddiff.launch.parameters import Path as Names
from meddiff.launch.schema import schema_problems
from meddiff.launch.search import grid_problems
from meddiff.runs.earlier_names import current_name

#: Words that YAML reads as true and false although they look like texts.
SWITCHES = ("on", "off", "yes", "no", "y", "n")
#: Kinds that Optuna knows, as W&B's own scheduler maps them.
OPTUNA_KINDS = (
    "constant", "categorical", "int_uniform", "uniform", "log_uniform_values", "q_uniform", "q_log_uniform_values",
)  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """A metric that a sweep looks at.

    Attributes:
        name: as it is logged, ``grounding/macro_cnr``.
        goal: minimize or maximize.
        target: no new run begins once one has reached it; None: no such value.
    """

    name: str
    goal: str
    target: float | None

    def reached(self, value: float) -> bool:
        """Whether a value is as good as the target, or better."""
        if self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


@dataclass(frozen=True)
class SweepFile:
    """A sweep file that can be run here.

    Attributes:
        path: where it was read.
        config: its content.
        parameters: by the path of their names, sorted.
    """

    path: Path
    config: Mapping[str, object]
    parameters: Mapping[Names, Parameter]

    @property
    def name(self) -> str:
        """As the file says, else its own name."""
        return str(self.config.get("name") or self.path.stem)

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @property
    def command(self) -> list[object] | None:
        return cast("list[object] | None", self.config.get("command"))

    @property
    def program(self) -> str | None:
        return cast("str | None", self.config.get("program"))

    @property
    def run_cap(self) -> int | None:
        return cast("int | None", self.config.get("run_cap"))

    @property
    def early_terminate(self) -> Mapping[str, object] | None:
        return cast("Mapping[str, object] | None", self.config.get("early_terminate"))

    @property
    def objectives(self) -> list[Objective]:
        """One of ``metric``, several of ``metrics``, none of neither; under the names of today, as rows are read."""
        given = self.config.get("metrics") or ([self.config["metric"]] if "metric" in self.config else [])
        return [
            Objective(current_name(str(one["name"])), str(one.get("goal", "minimize")), one.get("target"))
            for one in cast("list[Mapping[str, float | None]]", given)
        ]

    @property
    def definition(self) -> dict[str, object]:
        """What makes it this sweep and no other: a sweep goes on only under the same."""
        return {key: self.config.get(key) for key in ("method", "parameters", "command", "program")}


def read_sweep_file(path: str | Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        UserError: not readable, not valid for W&B, or it cannot be run here; a sentence for each reason.
    """
    path = locate(path)
    text = read_text(path)
    try:
        config, node = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_yaml_sentence(text, error)}") from None
    except ValueError as error:
        raise UserError(f"{path} {no_yaml(error)}: correct it.") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is no sweep file: it needs method, parameters and command, a key a line.")
    problems = [*switches(node), *schema_problems(config)]
    if not problems:
        problems = trap_problems(config)
    if not problems:
        sweep = SweepFile(path, config, flat(config["parameters"]))
        problems = problems_here(sweep)
    refuse([f"{path}: {problem}" for problem in problems])
    return sweep


def _yaml_sentence(text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark is not None else 0
    lines = text.splitlines()
    around = "\n".join(lines[max(0, line - 2) : line])
    if "${" in around:
        return f'line {line} is no YAML: a macro within brackets needs quotes, "${{args}}"; or write one item a line.'
    reason = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"line {line} is no YAML ({reason}): correct it."


def switches(node: yaml.Node | None, where: str = "") -> list[str]:
    """A sentence for each ``on``, ``off``, ``yes`` or ``no`` without quotes, which YAML takes for true or false."""
    if isinstance(node, yaml.MappingNode):
        return [text for key, value in node.value for text in switches(value, f"{where}.{key.value}".strip("."))]
    if isinstance(node, yaml.SequenceNode):
        return [text for value in node.value for text in switches(value, where)]
    if not isinstance(node, yaml.ScalarNode) or node.style or not node.tag.endswith(":bool"):
        return []
    if node.value.lower() not in SWITCHES:
        return []
    meant = "true" if node.value.lower() in ("on", "yes", "y") else "false"
    return [
        f"{where}: YAML reads {node.value} as {meant} (line {node.start_mark.line + 1}): write {meant}, or the text in "
        f'quotes, "{node.value}".'
    ]


def trap_problems(config: Mapping[str, object]) -> list[str]:
    """What is valid and yet would not arrive as it is meant: values that become other words on a command line."""
    words = bool(macros(cast("list[object] | None", config.get("command"))) & set(AS_WORDS))
    parameters = cast("Mapping[str, Mapping[str, object]]", config["parameters"])
    return [text for name, one in parameters.items() for text in _traps(name, one, words)]


def _traps(name: str, config: Mapping[str, object], words: bool) -> list[str]:
    here = f"parameters.{name}"
    if "parameters" in config:
        inner = cast("Mapping[str, Mapping[str, object]]", config["parameters"])
        if words:
            first = next(iter(inner))
            return [
                f"{here}: nested parameters arrive as one word, the repr of a dict: write {name}.{first} as the name of a "
                "parameter."
            ]
        return [text for key, one in inner.items() for text in _traps(f"{name}.{key}", one, words)]
    given = [("value", config["value"])] if "value" in config else []
    given += [("values", value) for value in cast("list[object]", config.get("values", []))]
    problems = []
    for key, value in given:
        parts = list(_parts(value))
        wrong = next((part for part in parts if not isinstance(part, str | int | float | None)), None)
        if any(not isinstance(name, str) for name in _keys(value)):
            problems.append(f"{here}.{key}: names within {value!r} must be texts: write them in quotes.")
        elif wrong is not None:
            problems.append(f"{here}.{key}: {wrong} is a {type(wrong).__name__} to YAML: write it in quotes.")
        elif any(isinstance(part, float) and not math.isfinite(part) for part in parts):
            problems.append(f"{here}.{key}: a value must be finite.")
        elif any(isinstance(part, str) and "\0" in part for part in parts):
            problems.append(f"{here}.{key}: no command takes a NUL character: take it out.")
        elif words and value is None:
            problems.append(f'{here}.{key}: null becomes the word None: write "null" in quotes.')
        elif words and any(part is None for part in parts):
            problems.append(
                f"{here}.{key}: null within {value!r} becomes the text 'None': write a dotted name for that part."
            )
    return problems


def _keys(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value
    if isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _keys(part)


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from (key, *_parts(part))
    elif isinstance(value, list):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def problems_here(sweep: SweepFile) -> list[str]:
    """What W&B would take and this runner cannot do, or what would never end."""
    config, method = sweep.config, sweep.method
    problems = []
    if sweep.command is None and sweep.program is None:
        problems.append(
            "command: there is none, and no program: write the command, one word an item, ending in ${args}."
        )
    if method == "grid":
        problems += grid_problems(sweep.parameters)
    elif sweep.run_cap is None:
        problems.append(f"run_cap: a sweep of method {method} never ends by itself: say how many runs it has.")
    scheduler = cast("Mapping[str, object]", config.get("scheduler") or {})
    engine = scheduler.get("engine")
    if method == "custom" and engine != "optuna":
        given = f"engine {engine}" if engine else "nothing"
        problems.append(f"scheduler: {given} is given, and of the engines only optuna runs here: write engine: optuna.")
    if method != "custom" and engine is not None:
        problems.append(
            f"scheduler: engine {engine} runs on W&B's server only: take scheduler out to run the sweep here."
        )
    if "source" in scheduler:
        problems.append("scheduler.source: code beside a sweep file is not run here: take source out, or use wandb.")
    if method in ("bayes", "custom"):
        if not sweep.objectives:
            problems.append(f"metric: method {method} needs a metric to improve: give its name and goal.")
        problems += [
            f"parameters.{'.'.join(path)}: Optuna has no {one.kind}: take one of {', '.join(OPTUNA_KINDS)}."
            for path, one in sweep.parameters.items()
            if one.kind not in OPTUNA_KINDS
        ]
    if sweep.early_terminate is not None:
        if len(sweep.objectives) != 1:
            problems.append("early_terminate: it needs a metric to judge runs by: give metric, its name and goal.")
        try:
            bands_of(sweep.early_terminate)
        except UserError as error:
            problems.append(str(error))
    return problems


def canonical(values: Mapping[str, object]) -> str:
    """A setting of the parameters as one line of JSON: equal settings give equal lines."""
    return json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)
