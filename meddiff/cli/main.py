"""The ``lightning`` command: LightningCLI's verbs and the suite's own.

Heavy imports happen inside the verb that needs them, so that `--help` and a mistyped verb answer at once.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TextIO

from meddiff.cli.last_door import last_door, visible_traceback, without_flag
from meddiff.cli.libraries import read_lightning, read_torch
from meddiff.common.errors import UserError, refuse
from meddiff.common.outside import terminal
from meddiff.common.places import at_home
from meddiff.common.stopping import early_signal_noted, exit_code, signals_stop

LIGHTNING_VERBS = {
    "fit": "train a model (LightningCLI)",
    "validate": "validation loss of a checkpoint (LightningCLI)",
    "test": "test loss of a checkpoint (LightningCLI)",
    "predict": "draw an image for each caption of the validation split (LightningCLI)",
}
#: verb -> (module with `main(arguments)`, one line of help)
OWN_VERBS = {
    "prepare": ("meddiff.cli.prepare", "turn a cohort into latent shards"),
    "sample": ("meddiff.cli.sample", "draw images for prompts from a checkpoint"),
    "evaluate": ("meddiff.cli.evaluate", "the numbers of the paper's tables from a checkpoint"),
    "explain": ("meddiff.cli.explain", "where and when: maps of every tool by timestep, scored with controls"),
    "export": ("meddiff.cli.export", "a trained model as a diffusers pipeline, with its model card"),
    "tables": ("meddiff.cli.tables", "the paper's tables, published values beside measured ones"),
    "report": ("meddiff.cli.report", "one HTML page about one or several runs"),
    "sweep": ("meddiff.cli.sweep", "many runs of one command, as a W&B sweep file says, on this machine"),
    "dashboard": ("meddiff.cli.dashboard", "the same page, live, over a folder of runs"),
    "doctor": ("meddiff.cli.doctor", "check this installation and this machine"),
}
#: Own verbs that do nothing without torch.
COMPUTING = ("sample", "evaluate", "explain", "export")
#: What a verb says when a signal stops it.
STOPPED = {
    "prepare": ": finished shards are whole, and the same command goes on from there",
    "sample": ": finished images are whole, and the same command goes on from there",
    "export": ": nothing is left of what was not whole",
    "explain": ": what was measured is kept, and the same command goes on from there",
    "evaluate": ": what was measured is kept, and the same command goes on from there",
    "sweep": ": its runs were told to stop with a checkpoint, and the same command goes on from there",
}


def usage() -> str:
    """The top-level help."""
    lines = ["usage: lightning VERB [options]     (also: meddiff VERB, python -m meddiff VERB)", ""]
    verbs = {**LIGHTNING_VERBS, **{verb: text for verb, (_, text) in OWN_VERBS.items()}}
    lines += [f"  {verb:<10}{text}" for verb, text in verbs.items()]
    lines += [
        "",
        "  lightning fit -c configs/quickstart.yaml     train on phantoms: no download, account or GPU",
        "  lightning fit --resume runs/NAME/TIME        go on with a stopped run",
        "  lightning VERB --help                        options of a verb",
        "  lightning --version                          of this suite and of what it computes with",
        "  lightning VERB ... --traceback               where in the code an error came from, too",
    ]
    return "\n".join(lines)


def versions() -> str:
    """This suite, Python, and what decides results, by what is installed: nothing is imported."""
    from importlib import metadata

    found = [f"python {sys.version.split()[0]}"]
    for name in ("meddiff-tradeoff", "torch", "lightning", "diffusers", "transformers", "open_clip_torch", "wandb"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} is not installed")
    return "\n".join([found[1], found[0], *found[2:]])


def _own(module: str) -> Callable[[list[str]], int]:
    verb: Callable[[list[str]], int] = import_module(module).main
    return verb


def dispatch(arguments: list[str]) -> int:
    """Run one verb; returns the exit code.

    Raises:
        UserError: something the user can mend.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("--version", "-V"):
        print(versions())
        return 0
    # `lightning -c FILE fit` is what people also type; LightningCLI wants the verb first.
    position = next((i for i, a in enumerate(arguments) if a in LIGHTNING_VERBS or a in OWN_VERBS), None)
    if position is None or any(a in ("-h", "--help") for a in arguments[:position]):
        raise UserError(f"Unknown verb {arguments[0]!r}: `lightning --help` lists them.")
    verb, rest = arguments[position], arguments[:position] + arguments[position + 1 :]
    rest = [spelled_out(argument) for argument in rest]
    if verb in OWN_VERBS:
        from meddiff.cli.known_options import text_of, unknown_flags

        if (text := text_of(verb, rest)) is not None:
            print(text)
            return 0
        refuse(unknown_flags(verb, rest))
        if verb in COMPUTING and not asks_only(rest):
            read_torch(verb)
        return _own(OWN_VERBS[verb][0])(rest)
    with early_signal_noted():
        return _of_lightning(verb, rest)


def _of_lightning(verb: str, rest: list[str]) -> int:
    from meddiff.cli.arguments import expand

    expanded = expand(rest)
    from meddiff.cli.fit_help import asks_for_help, help_text, misspelt, nothing_to_train
    from meddiff.cli.quick_check import certain_problems

    if not expanded:
        raise nothing_to_train(verb)
    if asks_for_help(expanded) and (text := help_text(verb, expanded)) is not None:
        print(text)
        return 0
    refuse(misspelt(expanded))
    refuse(certain_problems(expanded))
    if not asks_only(expanded):
        read_torch(verb)
        read_lightning(verb)
    from meddiff.cli.lightning_cli import run

    return run(verb, expanded)


def asks_only(arguments: list[str]) -> bool:
    """Whether nothing is to be run: help, or the configuration as it is understood."""
    return any(flag in ("-h", "--help") or flag.startswith(("--print_config", "--help.")) for flag in arguments)


@contextmanager
def warnings_made_visible() -> Iterator[None]:
    """Warnings name files and labels of the cohort: their text goes through :func:`terminal`, whoever warns."""
    show = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text, clean = str(message), terminal(message, newlines=True)
        show(message if clean == text else clean, category, filename, lineno, file, line)

    warnings.showwarning = shown
    try:
        yield
    finally:
        if warnings.showwarning is shown:
            warnings.showwarning = show


def spelled_out(argument: str) -> str:
    """``--out=~/x`` and a bare ``~/x`` with the home folder in its place, which a shell does only for the second."""
    flag, equals, value = argument.partition("=")
    return f"{flag}={at_home(value)}" if equals and flag.startswith("-") else str(at_home(argument))


def main(arguments: list[str] | None = None) -> None:
    """Console entry point: a UserError becomes a sentence (or some, a line each) on stderr and code 2, a signal 128 + n.

    Whatever else is raised is told as :mod:`meddiff.cli.last_door` says.
    """
    given = without_flag(sys.argv[1:] if arguments is None else arguments)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = visible_traceback
    try:
        with signals_stop(), warnings_made_visible():
            code = dispatch(given)
            sys.stdout.flush()  # a pipe that nobody reads is told of here, and not by Python as it ends
    except UserError as error:
        print("error: " + "\n       ".join(map(terminal, error.args)), file=sys.stderr)
        code = 2
    except KeyboardInterrupt as stop:
        verb = next((word for word in given if word in OWN_VERBS or word in LIGHTNING_VERBS), "")
        print(f"\nstopped{STOPPED.get(verb, '')}", file=sys.stderr)
        code = exit_code(stop)
    except Exception as error:  # the last door: whatever it is
        code = last_door(error, given)
    sys.exit(code)


if __name__ == "__main__":
    main()
