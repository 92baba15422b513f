"""The experiment on phantoms: rows of finished runs into docs/results/, and out of the rows the page. No torch.

    lightning sweep sweeps/phantom_tradeoff.yaml
    python tools/tradeoff_results.py collect runs/phantom_tradeoff      # rows of its finished runs, beside those that are there
    python tools/tradeoff_results.py page                               # tables, picture and first lines of the page
    python tools/tradeoff_results.py merge FOLDER                       # runs.csv and phrases.csv of another machine
    python tools/tradeoff_results.py go-on sweeps/phantom_tradeoff.yaml --part 1/2

``go-on`` makes a sweep's folder on a machine that has none: what has rows already, and what is another machine's part, counts
as done, and `lightning sweep` runs the rest.

A tool and no verb of the command: it writes one page of this repository. What it computes is in meddiff/reports/experiment/.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.common.locks import locked
from meddiff.common.outside import terminal
from meddiff.launch.record import FINISHED, STOPPED, Record, folder_of
from meddiff.launch.search import grid
from meddiff.launch.sweep_file import read_sweep_file
from meddiff.launch.sweep_folder import open_sweep
from meddiff.reports.experiment import between, rows, tables
from meddiff.reports.experiment.answer import answer
from meddiff.reports.experiment.claims import claims
from meddiff.reports.experiment.measured import TRUST
from meddiff.reports.experiment.picture import draw
from meddiff.runs.folder import read_run
from meddiff.runs.names import CONFIG
from meddiff.runs.names import FINISHED as FINISHED_FILE
from meddiff.runs.tables import write_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE = RESULTS / "tradeoff_on_phantoms.md"
PICTURE = ROOT / "docs" / "img" / "tradeoff_on_phantoms.svg"
CLAIMS = "claims.csv"
#: A part of the page that is made; what stands around it is written by hand.
MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NO_PICTURE, NO_TABLES = "No picture yet.", "No tables yet."
#: Table -> the sweeps whose rows it is made of.
SWEEPS = {
    "main": ("phantom_tradeoff", "phantom_tradeoff_long"),
    "beside": ("phantom_tradeoff", "phantom_tradeoff_long"),
    "mechanism": ("phantom_tradeoff_long",),
    "trust": ("phantom_tradeoff_long",),
    "rate": ("phantom_rates", "phantom_tradeoff"),
    "prompt": ("phantom_texts", "phantom_tradeoff"),
    "confounders": ("phantom_confounders", "phantom_tradeoff"),
    "base": ("phantom_language", "phantom_tradeoff"),
}


def collect(folders: Sequence[Path], results: Path, anew: bool = False) -> rows.Collected:
    """Rows of the finished runs in ``folders`` (sweeps or single runs), put beside those of ``results``, or in their place.

    Raises:
        UserError: no folder, or none of a run in it.
    """
    found, left = rows.Collected() if anew else rows.read(results), 0
    for folder in folders:
        runs = [folder] if (folder / CONFIG).is_file() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        if not runs:
            raise UserError(f"{folder} is no run and no sweep: name RUNS/NAME, in which the run folders lie.")
        for run in runs:
            if (run / FINISHED_FILE).is_file():
                found.update(rows.collect(read_run(run)))
            else:
                left += 1
                print(f"left out, not finished: {terminal(run)}", file=sys.stderr)
    rows.write(results, found)
    print(f"{len(found.finished)} runs in {terminal(results)}" + (f", {left} left out" if left else ""))
    return found


def go_on(file: str, runs: Path, results: Path, part: str) -> int:
    """Write down what of a sweep is done elsewhere; returns how many runs are left for this machine.

    Raises:
        UserError: no grid, another sweep in its folder, one that runs, or a part that is none.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", part)
    mine, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= mine <= of:
        raise UserError(f"--part {part}: write 2/3 for the second of three machines.")
    sweep = read_sweep_file(file)
    if sweep.method != "grid":
        raise UserError(f"{file}: only a grid can be shared out: it knows all its runs beforehand.")
    known, folder, left = rows.read(results).finished, runs / sweep.name, 0
    with locked(folder, "lightning sweep"):
        open_sweep(folder, sweep, None)
        record = Record(folder)
        there = {one.folder.partition("-")[2] for one in record.runs.values()}
        for number, values in enumerate(grid(sweep.parameters), 1):
            name = folder_of(number, values)
            digest = name.partition("-")[2]
            done, elsewhere = f"{sweep.name}/{digest}" in known, (number - 1) % of != mine - 1
            if digest in there:
                continue
            if not done and not elsewhere:
                left += 1
                continue
            state, reason = (FINISHED, "its rows are collected") if done else (STOPPED, "another machine's part")
            record.append("started", number, parameters=values, folder=name)
            record.append("ended", number, state=state, reason=reason, last_lines=[])
    print(f"{left} runs left: lightning sweep {file} --runs {terminal(runs)}")
    return left


def page(results: Path, text: str, picture: Path, design: tables.Design | None = None) -> str:
    """The page with its made parts made anew from the rows; ``claims.csv`` and the picture are written beside it.

    Raises:
        UserError: the page lacks a part, or rows that do not belong together.
    """
    design = design or tables.Design()
    collected = rows.read(results)
    found = tables.tables(claims(collected, tables.FIGURES), design)
    if found:
        write_table(results / CLAIMS, tables.rows(found), tables.COLUMNS, only=True)
    drawn = draw(collected, design, picture)
    shown = f"![the trade-off over training](../img/{picture.name})" if drawn else NO_PICTURE
    parts = {
        "answer": answer(found, design),
        "picture": shown,
        "tables": all_tables(found, design, collected) or NO_TABLES,
    }
    named = [match[2] for match in MADE.finditer(text)]
    if sorted(named) != sorted(parts):
        raise UserError(f"The page has the made parts {named}: it needs {', '.join(parts)}, once each.")
    return MADE.sub(lambda match: f"{match[1]}{parts[match[2]]}\n{match[3]}", text)


def all_tables(found: Sequence[tables.ClaimTable], design: tables.Design, collected: rows.Collected) -> str:
    """Every table with the commands below it; behind the main one and those of a factor whether the differences differ."""
    blocks = []
    for one in found:
        beside = tables.trust_controls(one, collected, design) if one.name == "trust" else ""
        blocks.append(tables.markdown(one, design) + (f"\n\n{beside}" if beside else "") + made_by(one.name))
        if one.name == "main" or one.name in tables.FACTORS:
            title, reference = (between.TITLE, None) if one.name == "main" else ("", design)
            compared = between.between(one.claims, reference=reference)
            blocks += [title + between.markdown(compared, design) + made_by(one.name)] if compared else []
    return "\n\n".join(blocks)


def made_by(table: str) -> str:
    """The commands whose rows a table is made of, a line below it."""
    commands = [f"`lightning sweep sweeps/{name}.yaml`" for name in SWEEPS[table]]
    commands += [f"`lightning evaluate {part} --run RUN`" for part in parts_asked()] if table == "trust" else []
    return f"\n\n*Made by {', '.join(commands)}, `collect` and `page`.*"


def parts_asked() -> list[str]:
    """Parts of ``lightning evaluate`` that the table of trust is made of."""
    return list(dict.fromkeys(name.partition("/")[0] for name in TRUST))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables lie")
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("collect", help="rows of finished runs")
    one.add_argument("folders", type=Path, nargs="+", metavar="RUNS/NAME")
    one.add_argument("--anew", action="store_true", help="forget the rows that are there")
    one = verbs.add_parser("merge", help="tables of another machine")
    one.add_argument("folder", type=Path)
    one = verbs.add_parser("go-on", help="what of a sweep is done elsewhere")
    one.add_argument("file", metavar="SWEEP.yaml")
    one.add_argument("--runs", type=Path, default=Path("runs"))
    one.add_argument("--part", default="1/1", metavar="K/N", help="of this machine, the K-th of N")
    verbs.add_parser("page", help="tables, picture and first lines of the page")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "collect":
            collect(options.folders, options.results, options.anew)
        elif options.verb == "merge":
            other = rows.read(options.folder)
            if not other.runs:
                raise UserError(f"{options.folder} holds no {rows.RUNS}: name the folder of another machine's tables.")
            rows.write(options.results, rows.merged([rows.read(options.results), other]))
        elif options.verb == "go-on":
            go_on(options.file, options.runs, options.results, options.part)
        else:
            text = page(options.results, PAGE.read_text(encoding="utf-8"), PICTURE)
            with atomic_open(PAGE, "w") as stream:
                stream.write(text)
    except UserError as error:
        print(f"error: {terminal(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
