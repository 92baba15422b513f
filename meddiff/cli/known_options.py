"""The options of the Lightning verbs as a table that is read in a millisecond; ``tools/options_table.py`` makes it.

Source: own.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

FILE = Path(__file__).parent / "options" / "lightning.json"
#: Help of verbs whose options live beside torch, as their parsers print it.
TEXTS = FILE.parent / "help"
_FLAG = re.compile(r"--[A-Za-z][\w.-]*")


class Option(NamedTuple):
    """One option.

    Attributes:
        name: within its section, such as ``learning_rate`` or ``sampling.steps``.
        takes: its type and default, in words.
        text: what it does.
    """

    name: str
    takes: str
    text: str


class Described(TypedDict):
    """A class: what it says of itself, and its options."""

    text: str
    options: list[list[str]]


class Known(TypedDict):
    """The whole table."""

    lightning: str
    models: dict[str, Described]
    data: dict[str, Described]
    callbacks: dict[str, Described]
    trainer: list[list[str]]


#: Options that are no class's: name -> (takes, text).
COMMON: Mapping[str, tuple[str, str]] = {
    "config": ("FILE", "Config file (short: -c); several may be given, the later one wins, and flags win over files."),
    "resume": ("RUN", "Go on with a stopped run, in its folder (fit only)."),
    "base": ("FILE", "In a config: the file(s) that it states its difference from."),
    "name": ("str, default: run", "Name of the run folder: RUNS/NAME/TIME."),
    "runs": ("str, default: runs", "Folder of all run folders."),
    "seed_everything": ("bool | int, default: 0", "Seed of weights, order and noise."),
    "ckpt_path": ("FILE", "Begin from this checkpoint, in a new run folder."),
    "weights_only": ("bool | null", "How Lightning reads the checkpoint; the suite's own need nothing else."),
    "allow_media_upload": ("bool, default: false", "Pictures and texts of a credentialed cohort to the loggers."),
    "print_config": ("[=skip_unset]", "Print the configuration as it is understood, and end."),
    "traceback": ("", "Where in the code an error came from, too."),
    "help": ("", "This text; with -c FILE, of the classes in that file."),
}


@cache
def known() -> Known:
    """The table."""
    return cast(Known, json.loads(FILE.read_text(encoding="utf-8")))


def options_of(section: str, class_path: str | None = None) -> list[Option] | None:
    """The options of a section of a config; None where they are not known here.

    Args:
        section: ``trainer``, ``model``, ``data`` or the name of a callback.
        class_path: of model or data.
    """
    table = known()
    if section == "trainer":
        # those of another Lightning may be others
        return [Option(*one) for one in table["trainer"]] if _same_lightning() else None
    described = {"model": table["models"], "data": table["data"]}.get(section, table["callbacks"])
    found = described.get((class_path or "") if section in ("model", "data") else section)
    return None if found is None else [Option(*one) for one in found["options"]]


@cache
def _same_lightning() -> bool:
    try:
        return metadata.version("lightning") == known()["lightning"]
    except metadata.PackageNotFoundError:
        return False


def text_of(verb: str, arguments: Sequence[str]) -> str | None:
    """The stored help of a verb, or of one of its parts; None where it has none, or is not asked for help.

    Args:
        arguments: behind the verb.
    """
    if not any(one in ("-h", "--help") for one in arguments):
        return None
    found = _stored(verb, arguments)
    return None if found is None else found[1]


def unknown_flags(verb: str, arguments: Sequence[str]) -> list[str]:
    """A sentence for each flag that a verb with a stored help does not have, before anything is imported.

    Example:
        >>> unknown_flags("report", ["runs/a", "--outt", "x.html"])
        ['--outt is no option of `lightning report`: did you mean --out?']
    """
    found = _stored(verb, arguments)
    if found is None:
        return []
    name, text = found
    flags = sorted({one.rstrip(".") for one in _FLAG.findall(text)} | {"--help"})
    # behind an option that takes keys its keys stand, which others check
    with_keys = [f"{one}." for one in flags if not any(other.startswith(f"{one}.") for other in flags)]
    given = [one.partition("=")[0].rstrip("+") for one in _before_end(arguments)]
    problems = []
    for flag in dict.fromkeys(given):
        # what has blanks in it is a value, as argparse reads it
        if not _FLAG.fullmatch(flag) or flag in flags or flag.startswith(tuple(with_keys)):
            continue
        begun = [one for one in flags if one.startswith(flag)]
        meant = [f"--{one}" for one in nearest(flag[2:], [one[2:] for one in flags])]
        if len(begun) == 1:
            problems.append(f"{flag} is no option: write {begun[0]} in full.")
        elif meant:
            problems.append(f"{flag} is no option of `lightning {name}`: did you mean {' or '.join(meant)}?")
        else:
            problems.append(f"{flag} is no option of `lightning {name}`: `lightning {name} --help` lists them.")
    return problems


def _before_end(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _stored(verb: str, arguments: Sequence[str]) -> tuple[str, str] | None:
    """What is asked for and its help: of a part of the verb, if it is named and has one."""
    words = [one for one in arguments if not one.startswith("-")]
    # compared with what lies there: a word of a command line names no file
    there = {one.stem: one for one in TEXTS.glob("*.txt")}
    for name in (*(f"{verb} {word}" for word in words), verb):
        if (file := there.get(name.replace(" ", "_"))) is not None:
            return name, file.read_text(encoding="utf-8").rstrip()
    return None


def sections() -> tuple[str, ...]:
    """Names of the sections of a config."""
    return ("model", "data", *known()["callbacks"], "trainer")


def is_option(path: Sequence[str], options: Sequence[Option]) -> bool:
    """Whether a name within a section, split at its dots, is an option, part of one, or a key within one that takes keys."""
    names = {option.name for option in options}
    parents = {name.rpartition(".")[0] for name in names}
    for length in range(len(path), 0, -1):
        name = ".".join(path[:length])
        if name in names:
            return True  # what follows is a key of a dictionary, or an argument of a class, which others check
        if name in parents:
            return length == len(path)  # a whole group; else an unknown option of it
    return False


def nearest(name: str, options: Iterator[str] | Sequence[str]) -> list[str]:
    """Up to three names that may have been meant: those that ``name`` abbreviates first."""
    all_names = list(options)
    begun = [one for one in all_names if one.startswith(name) or one.rpartition(".")[2].startswith(name)]
    alike = get_close_matches(name, all_names, 3, 0.6)
    last = name.rpartition(".")[2]
    same_end = [
        one for one in all_names if one.rpartition(".")[2] in get_close_matches(last, [one.rpartition(".")[2]], 1, 0.8)
    ]
    return list(dict.fromkeys([*begun[:3], *alike, *same_end]))[:3]
