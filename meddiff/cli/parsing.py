"""Argument parsers whose errors are one sentence."""

import re
import sys
from typing import Any

from jsonargparse import ArgumentParser


def one_sentence(parser: Any, message: str, error: Exception | None) -> None:
    """Print ``message`` on one line of stderr, with where to look, and exit with 2."""
    owner = getattr(error, "subcommand_parser", None) or parser
    prog = owner.prog.replace(" [options]", "")
    print(f"error: {brief(str(message))} (`{prog} --help` lists what is accepted)", file=sys.stderr)
    parser.exit(2)


def brief(message: str) -> str:
    """jsonargparse's complaint on one line: of a Union, what was wrong with the type that was meant, not with null."""
    text = " ".join(message.split())
    inner = re.search(
        r"Does not validate against any of the Union subtypes.*?Errors: - (.*?) - Expected a <class 'NoneType'>", text
    )
    return text[: inner.start()] + inner.group(1) if inner else text


class SentenceParser(ArgumentParser):
    """jsonargparse's parser for the suite's own verbs."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        one_sentence(self, message, ex)
