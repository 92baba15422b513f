"""``lightning tables``: the paper's tables from evaluated runs, and a benchmark's, published values beside measured ones."""

from pathlib import Path
from typing import Literal

from meddiff.cli.parsing import SentenceParser
from meddiff.common.outside import terminal


def main(arguments: list[str]) -> int:
    """Parse, print and write; returns the exit code.

    Raises:
        UserError: not a run folder, a run without an evaluation, an option out of range, rows of a benchmark that cannot be
            read, or files that cannot be written.
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
    text = "Numbers of the tables; by default all, and none where a benchmark is asked for."
    parser.add_argument("--tables", type=int, nargs="+", default=None, help=text)
    text = "Published rows of CheXGenBench beside these runs, on the axes that mean the same; the others are refused."
    parser.add_argument("--benchmark", action="store_true", help=text)
    text = "csv with the columns of chexgenbench.csv in its place, such as a copy with the N that its authors told you."
    parser.add_argument("--benchmark_rows", type=str | None, default=None, metavar="FILE", help=text)
    parser.add_argument("--evaluation", type=str | None, default=None, help="Its name; by default the newest of a run.")
    parser.add_argument(
        "--min_occurrences", type=int, default=25, help="Table 6: words that occur more often than this."
    )
    parser.add_argument("--intervals", type=bool, default=True, help="95 % intervals of the averages.")
    options = parser.parse_args(arguments)
    from meddiff.reports.paper.benchmark import FILE
    from meddiff.reports.paper.build import NUMBERS, build_tables, render, write_tables

    rows = Path(options.benchmark_rows) if options.benchmark_rows else FILE if options.benchmark else None
    numbers = options.tables if options.tables is not None else NUMBERS if rows is None else ()
    tables = build_tables(options.runs, numbers, options.evaluation, options.min_occurrences, options.intervals, rows)
    print(terminal(render(tables, options.format), newlines=True), end="")
    if options.out:
        print(f"\n{len(write_tables(tables, Path(options.out)))} files written to {terminal(options.out)}.")
    return 0
