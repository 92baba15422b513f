"""``lightning tables``: the tables of the paper from evaluated runs, published values beside the measured ones."""

from pathlib import Path
from typing import Literal

from meddiff.cli.parsing import SentenceParser
from meddiff.common.outside import terminal


def main(arguments: list[str]) -> int:
    """Parse, print and write; returns the exit code.

    Raises:
        UserError: not a run folder, a run without an evaluation, an option out of range, or files that cannot be written.
    """
    parser = SentenceParser(
        prog="lightning tables",
        description="The paper's tables 1 to 7 from `lightning evaluate`'s files, published values beside measured ones.",
    )
    parser.add_argument(
        "runs", type=str, nargs="+", metavar="RUN", help="Run folder(s); runs that differ only by the seed are pooled."
    )
    parser.add_argument(
        "--format", type=Literal["text", "markdown", "csv", "latex"], default="text", help="What is printed."
    )
    parser.add_argument("--out", type=str | None, default=None, help="Folder: also write every table in all formats.")
    parser.add_argument("--tables", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7], help="Numbers of the tables.")
    parser.add_argument("--evaluation", type=str | None, default=None, help="Its name; by default the newest of a run.")
    parser.add_argument(
        "--min_occurrences", type=int, default=25, help="Table 6: words that occur more often than this."
    )
    parser.add_argument("--intervals", type=bool, default=True, help="95 % intervals of the averages.")
    options = parser.parse_args(arguments)
    from meddiff.reports.paper.build import build_tables, render, write_tables

    tables = build_tables(options.runs, options.tables, options.evaluation, options.min_occurrences, options.intervals)
    print(terminal(render(tables, options.format), newlines=True), end="")
    if options.out:
        print(f"\n{len(write_tables(tables, Path(options.out)))} files written to {terminal(options.out)}.")
    return 0
