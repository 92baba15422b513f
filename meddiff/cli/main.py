"""The ``lightning`` command: LightningCLI's verbs and the suite's own.

Heavy imports happen inside the verb that needs them, so that `--help` and a mistyped verb answer at once.
"""

import sys
from collections.abc import Callable
from importlib import import_module

from meddiff.common.errors import UserError, refuse
from meddiff.common.files import no_room
from meddiff.common.places import at_home
from meddiff.common.stopping import exit_code, signals_stop

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
    "tables": ("meddiff.cli.tables", "the paper's tables, published values beside measured ones"),
    "report": ("meddiff.cli.report", "one HTML page about one or several runs"),
    "doctor": ("meddiff.cli.doctor", "check this installation and this machine"),
}
#: What a verb says when a signal stops it.
STOPPED = {
    "prepare": ": finished shards are whole, and the same command goes on from there",
    "sample": ": finished images are whole, and the same command goes on from there",
    "evaluate": ": what was measured is kept, and the same command goes on from there",
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
    ]
    return "\n".join(lines)


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
    # `lightning -c FILE fit` is what people also type; LightningCLI wants the verb first.
    position = next((i for i, a in enumerate(arguments) if a in LIGHTNING_VERBS or a in OWN_VERBS), None)
    if position is None or any(a in ("-h", "--help") for a in arguments[:position]):
        raise UserError(f"Unknown verb {arguments[0]!r}: `lightning --help` lists them.")
    verb, rest = arguments[position], arguments[:position] + arguments[position + 1 :]
    rest = [spelled_out(argument) for argument in rest]
    if verb in OWN_VERBS:
        return _own(OWN_VERBS[verb][0])(rest)
    from meddiff.cli.arguments import expand

    expanded = expand(rest)
    from meddiff.cli.quick_check import certain_problems

    refuse(certain_problems(expanded))
    from meddiff.cli.lightning_cli import run

    return run(verb, expanded)


def spelled_out(argument: str) -> str:
    """``--out=~/x`` and a bare ``~/x`` with the home folder in its place, which a shell does only for the second."""
    flag, equals, value = argument.partition("=")
    return f"{flag}={at_home(value)}" if equals and flag.startswith("-") else str(at_home(argument))


def main(arguments: list[str] | None = None) -> None:
    """Console entry point: a UserError becomes one sentence on stderr and exit code 2, a signal 128 + its number."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with signals_stop():
            code = dispatch(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        full = no_room(error)
        if full is None:
            raise
        print(f"error: {full}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt as stop:
        verb = next((word for word in given if word in OWN_VERBS or word in LIGHTNING_VERBS), "")
        print(f"\nstopped{STOPPED.get(verb, '')}", file=sys.stderr)
        code = exit_code(stop)
    sys.exit(code)


if __name__ == "__main__":
    main()
