"""The commonest reason a run cannot start, found before torch is imported: weights or shards are not there.

Importing torch and Lightning takes ten seconds and more on a cold machine; a missing folder is known in a tenth of one.
This reads the same files and flags as the parser but understands less, so it only ever speaks when it is sure: whatever
it cannot read, it leaves to the full check (``cli/preflight.py``).
"""

import glob
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import yaml

from meddiff.cli.arguments import read_yaml, split_configs
from meddiff.common.bounded import parse_yaml
from meddiff.common.bounds import OF_TRAINER, out_of_bounds
from meddiff.common.ranges import range_problems


def merged(arguments: list[str]) -> dict[str, Any] | None:
    """Files and flags of an expanded command line as one nested dict without ``init_args``; None where unsure."""
    files, flags = split_configs(arguments)
    config: dict[str, Any] = {}
    for file in files:
        _merge(config, read_yaml(file))
    remaining = iter(flags)
    for flag in remaining:
        name, equals, value = flag.partition("=")
        path = name.removeprefix("--").split(".")
        if not name.startswith("--") or name.endswith("+") or path in (["model"], ["data"], ["help"]):
            return None
        if not equals:
            value = next(remaining, "")
        if len(path) == 1 and path != ["seed_everything"]:
            continue  # --name, --ckpt_path, --print_config, ...
        try:
            parsed, _ = parse_yaml(value)
        except (yaml.YAMLError, ValueError):
            return None
        for part in reversed([part for part in path if part != "init_args"]):
            parsed = {part: parsed}
        _merge(config, parsed)
    return config


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if key == "init_args" and isinstance(value, dict):
            _merge(into, value)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def certain_problems(arguments: list[str]) -> list[str]:
    """Sentences about files that are certainly missing; empty when all is there or this check is not sure.

    Args:
        arguments: of a Lightning verb, expanded by :func:`meddiff.cli.arguments.expand`.
    """
    if any(flag.startswith(("--print_config", "--help")) or flag == "-h" for flag in arguments):
        return []
    config = merged(arguments)
    if config is None:
        return []
    for name in ("model", "data", "trainer"):
        if isinstance(value := config.get(name), int | float | list):
            return [f"{name} is {value!r:.40}: it must be a section, with its options a line each."]
    if any(isinstance(config.get(name), str) for name in ("model", "data", "trainer")):
        return []  # a class path alone, which the full check reads
    model, data, trainer = (config.get(name) or {} for name in ("model", "data", "trainer"))
    checks = [quick_check_of(section.get("class_path")) for section in (model, data)]
    absurd = [*range_problems(trainer, OF_TRAINER, "trainer."), *out_of_bounds(model), *out_of_bounds(data)]
    absurd += out_of_bounds({"seed_everything": config.get("seed_everything")})
    if None in checks or "${" in str((model, data, trainer)):  # of a number it stands for the full check tells
        return absurd
    problems: list[str] = []
    for check, section in zip(checks, (model, data), strict=True):
        problems += check(section) if check is not None else []
    told = {problem.partition(" is ")[0] for problem in problems}
    problems += [problem for problem in absurd if problem.partition(" is ")[0] not in told]
    if problems and trainer.get("accelerator") == "gpu" and not has_gpu_files():
        problems.insert(0, no_gpu_sentence(trainer.get("devices"), 0))
    return problems


def quick_check_of(class_path: str | None) -> Callable[[Mapping[str, object]], list[str]] | None:
    """The quick check that the room of a class has for it (``QUICK`` of its ``preflight``); None where there is none."""
    room, dot, name = str(class_path or "").rpartition(".")
    if not dot:
        return None
    try:
        checks: Mapping[str, Callable[[Mapping[str, object]], list[str]]] = import_module(f"{room}.preflight").QUICK
    except Exception:  # whatever another package does when it is imported, the full check tells it
        return None
    return checks.get(name)


def has_gpu_files() -> bool:
    """Whether the system shows a GPU, by files alone."""
    return bool(glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/kfd") + glob.glob("/dev/dxg"))


def no_gpu_sentence(wanted: object, there: int) -> str:
    """What to do on a machine with too few GPUs."""
    return (
        f"trainer: the configuration asks for {wanted} GPUs on this machine, which has {there}: run it there, or add "
        f"--trainer.accelerator auto --trainer.devices 1 --trainer.num_nodes 1 --trainer.strategy auto "
        f"--trainer.precision 32-true."
    )
