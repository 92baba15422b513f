"""What a run of a sweep is started with: words of the command, parameter file and environment, as W&B's agent gives them.

Source: own; the tests compare them with what ``wandb`` 0.31 did with the same files. Nothing here goes through a shell.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from meddiff.common.outside import file_part
from meddiff.launch.parameters import Values
from meddiff.runs.new_run import RESTART_VARIABLE, RUN_DIR_VARIABLE

#: What is run when the file has no ``command``.
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
#: Macros that put the parameters on the command line as words.
AS_WORDS = (
    "args", "args_no_equals", "args_no_hyphens", "args_no_boolean_flags", "args_append_hydra", "args_override_hydra",
)  # fmt: skip
_MACRO = re.compile(r"\$\{(.*)\}", re.DOTALL)
_FROM_ENVIRONMENT = re.compile(r"\$\{envvar:([^}]*)\}")


def argv(
    command: Sequence[object] | None,
    program: str | None,
    values: Values,
    json_file: Path | str,
    environment: Mapping[str, str],
) -> list[str]:
    """The words of the command for one run.

    Args:
        command: of the file; None takes :data:`DEFAULT_COMMAND`.
        program: of the file.
        values: the run's parameters, in sorted order.
        json_file: where ``${args_json_file}`` lies.
        environment: for ``${envvar:NAME}``; what is not set there becomes the word NAME.

    Example:
        >>> argv(["fit", "${args}"], None, {"a": 1, "b": False}, "", {})
        ['fit', '--a=1', '--b=False']
    """
    flags = [f"--{name}={value}" for name, value in values.items()]
    words: dict[str, list[str]] = {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program] if program is not None else [],
        "args": flags,
        "args_no_equals": [word for name, value in values.items() for word in (f"--{name}", str(value))],
        "args_no_hyphens": [flag.removeprefix("--") for flag in flags],
        "args_no_boolean_flags": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in values.items()
            if value is not False
        ],
        "args_append_hydra": ["+" + flag.removeprefix("--") for flag in flags],
        "args_override_hydra": ["++" + flag.removeprefix("--") for flag in flags],
        "args_json": [json.dumps(values)],
        "args_json_file": [str(json_file)],
    }
    result: list[str] = []
    for part in DEFAULT_COMMAND if command is None else command:
        word = _FROM_ENVIRONMENT.sub(lambda found: environment.get(found[1], found[1]), str(part))
        macro = _MACRO.fullmatch(word)
        result += [word] if macro is None else words.get(macro[1], [])
    return result


def macros(command: Sequence[object] | None) -> set[str]:
    """Names of the macros in a command.

    Example:
        >>> sorted(macros(["fit", "${args_json_file}", "pre${args}"]))
        ['args_json_file']
    """
    parts = DEFAULT_COMMAND if command is None else command
    return {found[1] for part in parts if (found := _MACRO.fullmatch(str(part)))}


def parameter_file(values: Values) -> str:
    """What lies at ``WANDB_SWEEP_PARAM_PATH``: W&B in the run takes it for its configuration, and locks it."""
    listed = {name: {"value": value} for name, value in values.items()}
    return "wandb_version: 1\n\n" + yaml.safe_dump(listed, sort_keys=False, allow_unicode=True)


def run_id(sweep_id: str, number: int) -> str:
    """How W&B knows a run."""
    return f"{sweep_id}-{number:04d}"


def environment_of(
    base: Mapping[str, str], name: str, sweep_id: str, number: int, files: tuple[Path, Path], again: int, threads: int
) -> dict[str, str]:
    """The environment of one run.

    ``WANDB_SWEEP_ID`` is taken out: a server refuses runs of a sweep that it has not made (404). Without it the parameter
    file counts all the same, and the group holds the runs together.

    Args:
        base: of this process.
        name: of the sweep.
        sweep_id: what tells it from others of that name.
        number: of the run, from 1.
        files: folder of the run, and its parameter file.
        again: how often it was started before: it goes on from its newest checkpoint.
        threads: for its arithmetic; a smaller number that stands in the environment is kept.
    """
    folder, parameters = files
    given = base.get("OMP_NUM_THREADS", "")
    result = {key: value for key, value in base.items() if key not in ("WANDB_SWEEP_ID", RESTART_VARIABLE)} | {
        "WANDB_RUN_ID": run_id(sweep_id, number),
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "WANDB_RUN_GROUP": f"sweep-{file_part(name)}-{sweep_id}",
        "WANDB_JOB_TYPE": "sweep",
        RUN_DIR_VARIABLE: str(folder),
        "OMP_NUM_THREADS": str(min(threads, int(given)) if given.isdecimal() and int(given) > 0 else threads),
    }
    return result | ({RESTART_VARIABLE: str(again)} if again else {})
