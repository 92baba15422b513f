"""``python -m meddiff.cli.sweep_settings``: what commands of a sweep would refuse before they start, without starting them.

Reads a JSON list of argument lists from its input and writes a JSON list of lists of sentences.
"""

import contextlib
import io
import json
import sys
from contextlib import ExitStack
from typing import cast

from meddiff.cli.arguments import expand
from meddiff.cli.lightning_cli import CLI_OPTIONS, SuiteCLI
from meddiff.cli.main import LIGHTNING_VERBS, spelled_out
from meddiff.cli.parsing import home_spelled_out
from meddiff.cli.preflight import problems_before_start
from meddiff.cli.quick_check import certain_problems
from meddiff.common.errors import UserError
from meddiff.common.stopping import signals_stop


class SettingsCLI(SuiteCLI):
    """Parses and does nothing with it.

    Args:
        verb: fit, or another one of Lightning's.
        arguments: that follow it, expanded.
    """

    def __init__(self, verb: str, arguments: list[str]) -> None:
        super().__init__(ExitStack(), args=[verb, *arguments], **CLI_OPTIONS)

    def before_instantiate_classes(self) -> None:
        """Nothing: no run folder is made."""

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""

    def problems(self) -> list[str]:
        """What is missing or wrong, as ``lightning VERB`` says it before it starts."""
        home_spelled_out(self.section)
        return problems_before_start(str(self.subcommand), self.section)


class Checker:
    """Says of one command after the other what is wrong with it; the parser, which takes a second to build, is kept."""

    def __init__(self) -> None:
        self._parsed: SettingsCLI | None = None

    def parsed(self, verb: str, arguments: list[str]) -> SettingsCLI:
        """The command as the parser understands it."""
        if self._parsed is None:
            self._parsed = SettingsCLI(verb, arguments)
        else:
            self._parsed.parse_arguments(self._parsed.parser, [verb, *arguments])
            self._parsed.subcommand = verb
        return self._parsed

    def problems_of(self, arguments: list[str]) -> list[str]:
        """Sentences about one command; empty when it may start, or is none of Lightning's verbs."""
        place = next((place for place, word in enumerate(arguments) if word in LIGHTNING_VERBS), None)
        if place is None:
            return []
        rest = [spelled_out(word) for word in arguments[:place] + arguments[place + 1 :]]
        said = io.StringIO()
        try:
            expanded = expand(rest)
            certain = certain_problems(expanded)
            if certain:
                return certain
            with contextlib.redirect_stderr(said):
                return self.parsed(arguments[place], expanded).problems()
        except UserError as error:
            return [str(one) for one in error.args]
        except SystemExit:  # the parser's own sentence
            lines = said.getvalue().splitlines() or ["the command line is not understood"]
            return [lines[-1].removeprefix("error: ")]


def main() -> None:
    """Read, check, write."""
    commands = cast("list[list[str]]", json.load(sys.stdin))
    answers, checker = [], Checker()
    with contextlib.redirect_stdout(sys.stderr):
        for place, one in enumerate(commands, 1):
            answers.append(checker.problems_of(one))
            print(f"lightning sweep: checked {place} of {len(commands)}", flush=True)
    print(json.dumps(answers))


if __name__ == "__main__":
    with signals_stop():
        main()
