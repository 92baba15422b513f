"""Every option of the Lightning verbs into ``meddiff/cli/options/lightning.json``, so that help needs no torch.

    python tools/options_table.py          after an option was added, renamed or described anew

Importing torch and Lightning takes seconds; a person who asks for help waits a tenth of one. What stands in the file is what
jsonargparse finds in the classes: a test makes it again and compares.
"""

import io
import json
import os
import re
import shutil
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module, metadata

from jsonargparse import SUPPRESS, ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

import datamodules
import lightning_modules
from meddiff.cli.evaluate import PARTS
from meddiff.cli.known_options import FILE, TEXTS
from meddiff.cli.lightning_cli import TRAINER_DEFAULTS
from meddiff.cli.named_callbacks import NAMED, first_sentence
from meddiff.common.files import atomic_open, write_json
from meddiff.preparation.cohorts import COHORTS

Options = list[list[str]]
#: What jsonargparse puts behind the text of an option.
TAKES = re.compile(r"(?P<text>.*)\((?P<takes>(?:required|type: |default: ).*)\)")


def options_of(kind: type, left_out: frozenset[str] = frozenset()) -> Options:
    """[name, what it takes and its default, text] of every argument of a class, those of nested options with dots."""
    parser = ArgumentParser(prog="lightning", add_help=False, usage=SUPPRESS)
    parser.add_class_arguments(kind, "x", fail_untyped=False)
    formatter = parser._get_formatter()
    found: Options = []
    for action in parser._actions:
        if type(action).__name__ == "_ActionConfigLoad" or not action.option_strings or action.help == SUPPRESS:
            continue
        name = action.option_strings[0].removeprefix("--x.")
        if name in left_out or name.endswith(".help"):
            continue
        text = plain(" ".join(str(formatter._expand_help(action)).split()))
        ends = TAKES.fullmatch(text)
        found.append([name, ends["takes"], ends["text"].strip()] if ends else [name, "", text])
    return found


def plain(text: str) -> str:
    """A docstring's words without its roles and double quotes.

    Example:
        >>> plain("the fields of :class:`a.b.C`, ``x``")
        'the fields of C, `x`'
    """
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text).replace("``", "`")


def table() -> dict[str, object]:
    """What the file holds."""
    rooms = {"models": (lightning_modules, LightningModule), "data": (datamodules, LightningDataModule)}
    found: dict[str, object] = {"lightning": metadata.version("lightning")}
    for section, (room, base) in rooms.items():
        kinds = {name: getattr(room, name) for name in room.__all__}
        found[section] = {
            f"{room.__name__}.{name}": {"text": plain(first_sentence(kind)), "options": options_of(kind)}
            for name, kind in sorted(kinds.items())
            if isinstance(kind, type) and issubclass(kind, base)
        }
    found["callbacks"] = {
        name: {"text": plain(first_sentence(kind)), "options": options_of(kind)} for name, kind in NAMED.items()
    }
    trainer = options_of(Trainer)
    for option in trainer:
        if option[0] in TRAINER_DEFAULTS:
            head = option[1].rpartition("default: ")[0]
            option[1] = f"{head}default: {json.dumps(TRAINER_DEFAULTS[option[0]])}"
    found["trainer"] = trainer
    return found


def texts() -> dict[str, str]:
    """Name of a file -> help of a verb, or a part of one, whose parser needs torch, or a second to be imported."""
    os.environ["COLUMNS"] = "120"
    asked = {"sample": [], **{f"evaluate_{part}": [part] for part in (*PARTS, "all")}}
    asked |= {f"prepare_{cohort}": [cohort] for cohort in ("phantom", *COHORTS)}
    asked |= {name: [] for name in ("explain", "export", "tables", "report", "sweep", "dashboard", "doctor")}
    asked["dashboard_push"] = ["push"]
    found = {}
    for name, words in asked.items():
        verb, said = import_module(f"meddiff.cli.{name.partition('_')[0]}").main, io.StringIO()
        with redirect_stdout(said), suppress(SystemExit):
            verb([*words, "--help"])
        found[name] = "\n".join(line.rstrip() for line in said.getvalue().splitlines()) + "\n"
    return found


def main() -> int:
    """Write the files."""
    write_json(FILE, table())
    shutil.rmtree(TEXTS, ignore_errors=True)
    made = texts()
    for name, text in made.items():
        with atomic_open(TEXTS / f"{name}.txt", "w") as stream:
            stream.write(text)
    print(f"{FILE.name} and {len(made)} texts written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
