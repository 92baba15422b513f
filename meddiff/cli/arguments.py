"""The command line before jsonargparse sees it: config files first, their bases before them, --resume spelled out.

Why: jsonargparse reads left to right, so `fit --model.lr 1e-4 -c f.yaml` would silently let the file win, and a config has
no way to say "as that one, but". Both are settled here by rewriting the argument list. Source: own (spec/anchors.md, 5).
"""

import os
from pathlib import Path
from typing import Any

import yaml

from meddiff.common.bounded import Unbounded, check_yaml, no_yaml, parse_yaml
from meddiff.common.errors import UserError
from meddiff.common.places import at_home, locate
from meddiff.common.text_files import check_file, read_text
from meddiff.runs import names
from meddiff.runs.new_run import RUN_DIR_VARIABLE

CONFIG_FLAGS = ("-c", "--config")
#: Bytes of a config file; the longest here has five thousand.
LARGEST = 16 * 2**20
#: Files that one ``-c FILE`` may bring with it through ``base:``, each counted as often as it is named.
BASES = 100


def split_configs(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Config files named in ``arguments`` (in order) and everything else (in order)."""
    files, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if argument in CONFIG_FLAGS:
            file = next(remaining, None)
            if file is None:
                raise UserError(f"{argument} needs a file, e.g. {argument} configs/quickstart.yaml.")
            files.append(file)
        elif flag in CONFIG_FLAGS and equals:
            files.append(value)
        elif argument.startswith("-c") and not argument.startswith("--") and len(argument) > 2:
            files.append(argument[2:])
        else:
            rest.append(argument)
    return files, rest


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A config file as a dict.

    Raises:
        UserError: missing, not text in UTF-8, not YAML, not a mapping, or one that says a thing twice.
    """
    path = locate(file)
    check_file(path, LARGEST)
    if not os.path.isfile(path):
        raise UserError(f"No config file at {file}: the suite's own are in configs/, e.g. -c configs/quickstart.yaml.")
    try:
        content, tree = parse_yaml(read_text(path, LARGEST))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file} {no_yaml(error)}: correct it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold a mapping such as `trainer:`, `model:`, `data:`.")
    if twice := said_twice(tree):
        raise UserError(f"{file} has {twice}: join them, for of two only the last would count.")
    return content


def said_twice(node: yaml.Node | None, above: str = "") -> str | None:
    """The first key that stands twice in one mapping of a YAML document, and on which lines; None where none does.

    YAML forbids it, PyYAML takes the last one without a word: half a ``model:`` section would be lost.

    Example:
        >>> said_twice(yaml.compose("model: {a: 1}\\nmodel: {b: 2}", Loader=yaml.SafeLoader))
        '`model` twice (lines 1 and 2)'
    """
    inner: list[tuple[yaml.Node, str]] = []
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                return f"`{above}{name}` twice (lines {lines[name]} and {line})"
            lines[name] = line
            inner.append((value, f"{above}{name}."))
    elif isinstance(node, yaml.SequenceNode):
        inner = [(value, above) for value in node.value]
    return next((found for part, where in inner if (found := said_twice(part, where))), None)


def with_bases(file: str | Path) -> list[str]:
    """``file`` preceded by the files its ``base:`` names: relative to the file that names them, else the suite's own.

    Raises:
        UserError: a base is missing, is no name of a file, refers back to itself, or there are more than ``BASES``.
    """
    files: list[str] = []
    _add_with_bases(file, (), files)
    return files


def _add_with_bases(file: str | Path, above: tuple[Path, ...], files: list[str]) -> None:
    path = locate(file)
    if (real := Path(os.path.realpath(path))) in above:
        raise UserError(f"{file} is its own base: remove it from the `base:` chain.")
    base = read_yaml(path).get("base")
    names = [base] if isinstance(base, str) else [] if base is None else base
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file} has `base: {base!s:.60}`: it must be the name of a file, or a list of names.")
    for name in names:
        beside = path.parent / str(at_home(name))
        own = not os.path.exists(beside) and Path(name).parts[:1] == ("configs",)
        if len(above) + len(files) >= BASES:
            raise UserError(f"{file} and its `base:` chain name more than {BASES} files: shorten the chain.")
        _add_with_bases(locate(name) if own else beside, (*above, real), files)
    files.append(str(path))


def expand(arguments: list[str]) -> list[str]:
    """Arguments of a Lightning verb, rewritten so that flags win over files and files over their bases.

    Example:
        ``["--model.learning_rate", "1e-4", "-c", "configs/learnable.yaml"]`` becomes
        ``["-c", "configs/frozen.yaml", "-c", "configs/learnable.yaml", "--model.learning_rate", "1e-4"]``.
    """
    files, rest = split_configs(arguments)
    for argument in rest:
        said_once(argument)
    expanded = [flat for file in files for flat in with_bases(file)]
    run, rest = _take_resume(rest)
    if run is not None:
        if any(part.split("=")[0] == "--ckpt_path" for part in rest):
            raise UserError("--resume RUN already names the checkpoint: leave --ckpt_path out.")
        from meddiff.runs.checkpoints import find_checkpoint

        rest = ["--ckpt_path", str(find_checkpoint(run, to_train=True)), *rest]
        expanded = [str(Path(run) / names.CONFIG), *expanded]
        read_yaml(expanded[0])
        os.environ[RUN_DIR_VARIABLE] = str(Path(run))
    # Lightning counts `-c FILE` pairs and wants them after the verb, which the caller has taken off.
    return [part for file in expanded for part in ("-c", file)] + rest


def said_once(argument: str) -> None:
    """A section given as text, ``--model '{...}'``, is read as a file is.

    Raises:
        UserError: it says a thing twice.
    """
    flag, equals, value = argument.partition("=")
    text = value if equals and flag.startswith("--") else argument
    if text.lstrip()[:1] in ("{", "["):
        try:
            twice = said_twice(check_yaml(text))
        except Unbounded as error:
            raise UserError(f"{flag if equals else 'an argument'} {error}: write less.") from None
        except yaml.YAMLError:
            return  # a text that only begins like one
        if twice:
            raise UserError(f"{text} has {twice}: join them, for of two only the last would count.")


def _take_resume(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of ``--resume RUN`` and the other arguments."""
    run, rest = None, []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--resume":
            run = next(remaining, None)
            if run is None:
                raise UserError("--resume needs a run folder, e.g. --resume runs/quickstart/20250101-120000.")
        elif argument.startswith("--resume="):
            run = argument.partition("=")[2]
        else:
            rest.append(argument)
    return run, rest
