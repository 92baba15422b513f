"""The seven tables of the paper from evaluated runs, published values beside the measured ones.

Nothing here imports torch or Lightning. Source: Dombrowski et al. (AAAI 2024), tables 1 to 7; layout, error bars and
tests own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.reports.paper.benchmark import benchmark_tables, read_benchmark
from meddiff.reports.paper.cells import Table
from meddiff.reports.paper.classifier_table import table5
from meddiff.reports.paper.grounding_tables import table1, table3, table7
from meddiff.reports.paper.image_tables import table2, table4
from meddiff.reports.paper.pooling import Model, group_models
from meddiff.reports.paper.render import RENDERERS, SUFFIXES
from meddiff.reports.paper.word_table import table6
from meddiff.runs.evaluation_folder import read_evaluation

NUMBERS = (1, 2, 3, 4, 5, 6, 7)


def build_tables(
    runs: Sequence[str | Path],
    numbers: Sequence[int] = NUMBERS,
    evaluation: str | None = None,
    min_occurrences: int = 25,
    intervals: bool = True,
    benchmark: Path | None = None,
) -> list[Table]:
    """Read the evaluations and make the tables; one that the cohort does not allow says why.

    Args:
        runs: run folders, or folders of evaluations; runs that differ only by their seed become one column.
        numbers: which tables.
        evaluation: name of the evaluation of each run; None takes the newest.
        min_occurrences: table 6 shows words that occur more often.
        intervals: whether averages get their 95 % intervals.
        benchmark: published rows of a benchmark to put beside them; None puts none.

    Raises:
        UserError: no run, no evaluation, an option out of range, or rows of a benchmark that cannot be read.
    """
    if not runs:
        raise UserError("No run is given: `lightning tables RUN`.")
    wrong = [number for number in numbers if number not in NUMBERS]
    if wrong:
        raise UserError(f"There is no table {wrong[0]}: the paper has tables 1 to 7.")
    if min_occurrences < 0:
        raise UserError(f"--min_occurrences is {min_occurrences}; it must be 0 or more.")
    published = None if benchmark is None else read_benchmark(benchmark)
    models = group_models([read_evaluation(run, evaluation) for run in runs])
    makers: dict[int, Callable[[Sequence[Model]], Table]] = {
        1: lambda models: table1(models, intervals),
        2: lambda models: table2(models, intervals),
        3: lambda models: table3(models, intervals),
        4: lambda models: table4(models, intervals),
        5: lambda models: table5(models, intervals),
        6: lambda models: table6(models, min_occurrences),
        7: lambda models: table7(models, intervals),
    }
    tables = [makers[number](models) for number in dict.fromkeys(numbers)]
    return tables if published is None else [*tables, *benchmark_tables(models, published)]


def render(tables: Sequence[Table], style: str) -> str:
    """All tables in one format, with an empty line between them."""
    write = RENDERERS[style]
    return "\n".join(write(table) for table in tables)


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """One file a table and format (``table1.txt``, ``.md``, ``.csv``, ``.tex``), tests in a CSV file of their own.

    A table that is left out leaves its reason in its files.

    Raises:
        UserError: the files cannot be written.
    """
    files = {
        folder / f"{table.name}.{SUFFIXES[style]}": write(table)
        for table in tables
        for style, write in RENDERERS.items()
    }
    files |= {folder / f"{other.name}.csv": RENDERERS["csv"](other) for table in tables for other in table.below}
    for path, text in files.items():
        try:
            with atomic_open(path, "w") as stream:
                stream.write(text)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): name another folder with --out.") from error
    return list(files)
