"""Argument parsers whose errors are one sentence."""

import sys
from typing import Any

from jsonargparse import ArgumentParser


def one_sentence(parser: Any, message: str, error: Exception | None) -> None:
    """Print ``message`` on one line of stderr, with where to look, and exit with 2."""
    owner = getattr(error, "subcommand_parser", None) or parser
    prog = owner.prog.replace(" [options]", "")
    print(f"error: {' '.join(str(message).split())} (`{prog} --help` lists what is accepted)", file=sys.stderr)
    parser.exit(2)


class SentenceParser(ArgumentParser):
    """jsonargparse's parser for the suite's own verbs."""

    def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
        one_sentence(self, message, ex)
