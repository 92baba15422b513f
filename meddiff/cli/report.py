"""``lightning report``: one HTML page about one or several runs."""

from pathlib import Path

from meddiff.cli.parsing import SentenceParser
from meddiff.common.outside import terminal
from meddiff.reports.page.report import open_runs, write_report


def main(arguments: list[str]) -> int:
    """Parse and write; returns the exit code.

    Raises:
        UserError: not a run folder, or the file cannot be written.
    """
    parser = SentenceParser(
        prog="lightning report",
        description="Write report.html: the trade-off over training, grounding, samples, controls. No network needed.",
    )
    parser.add_argument("runs", type=str, nargs="+", metavar="RUN", help="Run folder(s), RUNS/NAME/TIME.")
    parser.add_argument(
        "--out", type=str | None, default=None, help="File to write; by default report.html in the first run's folder."
    )
    parser.add_argument(
        "--figures", type=str | None, default=None, help="Folder for the charts as SVG, PNG and PDF, instead of a page."
    )
    options = parser.parse_args(arguments)
    runs = [Path(run) for run in options.runs]
    if options.figures:
        from meddiff.reports.page.figures import write_figures
        from meddiff.reports.page.mechanism_figure import mechanism_figure
        from meddiff.reports.page.tables import Tables
        from meddiff.reports.page.timestep_charts import timestep_figures

        tables = Tables(open_runs(runs))
        whole = mechanism_figure(tables)
        further = timestep_figures(tables) | ({} if whole is None else {"mechanism": whole})
        written = write_figures(tables, Path(options.figures), further)
    else:
        written = [write_report(runs, Path(options.out) if options.out else None)]
    for path in written:
        print(terminal(path))
    return 0
