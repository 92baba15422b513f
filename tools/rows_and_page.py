"""What tools that make a page out of rows have in common: the parts of a page that are made, and two verbs. No torch."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.outside import terminal

#: A part of the page that is made; what stands around it is written by hand.
MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: Path, parts: Mapping[str, str]) -> None:
    """Write the made parts of a page anew."""
    written = MADE.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", page.read_text(encoding="utf-8"))
    with atomic_open(page, "w") as stream:
        stream.write(written)


def verbs_of(
    arguments: Sequence[str] | None,
    about: str,
    places: Mapping[str, Path],
    collect: Callable[[Sequence[Path], Path], int],
    page: Callable[..., None],
) -> int:
    """``collect RUN ...`` or ``page``; returns the exit code.

    Args:
        about: the description.
        places: options with their defaults: ``rows`` and ``page``, and what ``page`` takes after them.
        collect: of runs and the file of rows.
        page: of all places, in their order.
    """
    parser = argparse.ArgumentParser(description=about)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("collect").add_argument("runs", nargs="+", type=Path)
    verbs.add_parser("page")
    for one in verbs.choices.values():
        for name, default in places.items():
            one.add_argument(f"--{name}", type=Path, default=default)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "collect":
            print(f"{collect(options.runs, options.rows)} runs in {terminal(options.rows)}")
        else:
            page(*(getattr(options, name) for name in places))
            print(terminal(options.page))
    except UserError as error:
        print(f"error: {terminal(error)}", file=sys.stderr)
        return 2
    return 0
