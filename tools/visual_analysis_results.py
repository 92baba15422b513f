"""Visual analysis on phantoms: rows of runs that were explained into docs/results/, and out of the rows the page. No torch.

    for run in runs/phantom_tradeoff/0*; do lightning explain --run $run; lightning evaluate schedules --run $run; done
    python tools/visual_analysis_results.py collect runs/phantom_tradeoff/0*    # both tables of rows, in their place
    python tools/visual_analysis_results.py page                                # the tables of the page

A tool and no verb of the command: it writes one page of this repository.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rows_and_page import fill, verbs_of

from meddiff.common.errors import UserError
from meddiff.common.outside import markdown_cell
from meddiff.metrics.intervals import mean_interval
from meddiff.reports.page.report import open_runs
from meddiff.reports.page.saliency_wording import MAPS
from meddiff.reports.page.tables import Tables
from meddiff.runs.tables import read_table, write_table
from meddiff.runs.values import number

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE, ROWS = RESULTS / "visual_analysis.md", RESULTS / "visual_analysis.csv"
#: What a list of timesteps does, a row a run and list; lies beside the rows of maps.
SCHEDULES = "schedules.csv"
#: Areas of deletion and insertion, a row a run, map, timestep and game.
GAMES = "saliency_games.csv"
OF_GAMES = ("kind", "encoder", "seed", "images", "tool", "timestep", "game", "value", "n")
COLUMNS = ("kind", "encoder", "seed", "images", "tool", "class", "timestep", "figure", "value", "low", "high", "n")
FIGURES = ("cnr", "gain/absent")
OF_LISTS = ("schedule", "gamma", "steps", "fd_domain", "cnr", "gain_absent", "n", "phrases")
NONE = (
    "No run has been collected yet, so nothing is claimed here: the commands below make rows, and the rows this page."
)
Row = Mapping[str, str]


def collect(runs: Sequence[Path], file: Path) -> int:
    """The curves of runs into ``file``, what lists of timesteps do to them beside it, each in its place; how many runs had any.

    Raises:
        UserError: not run folders, or none of them was explained or drawn along lists of timesteps.
    """
    tables = Tables(open_runs(runs))
    rows: list[dict[str, object]] = []
    lists: list[dict[str, object]] = []
    played: list[dict[str, object]] = []
    found = 0
    for who, run in zip(tables.who, tables.found, strict=True):
        about = {"kind": who.kind, "encoder": who.encoder, "seed": who.seed}
        curves = [
            cells
            for cells in run.saliency()
            if cells.get("layer") == "all"
            and cells.get("figure") in FIGURES
            # of single findings what the page shows: rows outlive the runs, and are kept small
            and (cells.get("class") == "all" or (cells.get("tool") == "attention" and cells.get("class") != "macro"))
        ]
        rows += [{**cells, **about} for cells in curves]
        areas = [cells for cells in run.saliency("_games") if cells.get("taken") == "area"]
        length = {"images": curves[0].get("images", "")} if curves else {}
        played += [{**cells, **about, **length} for cells in areas]
        drawn = run.evaluated("schedules")
        lists += [{**about, **{name: cells.get(name) for name in OF_LISTS}} for cells in drawn]
        found += bool(curves or drawn)
    if not found:
        raise UserError("None of these runs was explained: `lightning explain --run RUN` measures one.")
    if rows:
        write_table(file, _beside(file, rows), COLUMNS, only=True)
    if played:
        write_table(file.with_name(GAMES), _beside(file.with_name(GAMES), played), OF_GAMES, only=True)
    if lists:
        kept = _beside(file.with_name(SCHEDULES), lists)
        write_table(file.with_name(SCHEDULES), kept, ("kind", "encoder", "seed", *OF_LISTS), only=True)
    return found


def _beside(file: Path, rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Rows with those that the file has of other runs: run folders are gone before the rows are."""
    told = ("kind", "encoder", "seed", "images")
    new = {tuple(str(row.get(name, "")) for name in told) for row in rows}
    kept = [dict(row) for row in read_table(file) if tuple(row.get(name, "") for name in told) not in new]
    return sorted([*kept, *rows], key=lambda row: [str(row.get(name, "")) for name in told])


def labelled(rows: Sequence[Row]) -> list[Row]:
    """Rows whose kind says how long their runs were trained, where some were trained longer than others."""
    lengths = {row.get("images", "") for row in rows}
    if len(lengths) < 2:
        return list(rows)
    return [{**row, "kind": f"{row['kind']}, {int(row['images'] or 0):,} images"} for row in rows]


def over_seeds(rows: Sequence[Row]) -> tuple[float, float, float, int]:
    """Mean over runs, its 95 % interval over seeds (NaN below five), how many.

    Example:
        >>> over_seeds([{"seed": "0", "value": "1"}, {"seed": "1", "value": "2"}])[0]
        1.5
    """
    values = [value for row in rows if (value := number(row.get("value"))) is not None]
    seeds = [row["seed"] for row in rows if number(row.get("value")) is not None]
    low, high = mean_interval(np.array([values]), seeds)
    return float(np.mean(values)), low, high, len(values)


def curves(rows: Sequence[Row], figure: str) -> dict[tuple[str, str, str], dict[int, list[Row]]]:
    """(kind, tool, class) -> timestep -> rows of all seeds."""
    found: dict[tuple[str, str, str], dict[int, list[Row]]] = {}
    for row in rows:
        step = number(row.get("timestep"))
        if row["figure"] == figure and step is not None and number(row.get("value")) is not None:
            name = (row["kind"], row["tool"], row["class"])
            found.setdefault(name, {}).setdefault(int(step), []).append(row)
    return found


def answer(rows: Sequence[Row]) -> str:
    """One sentence a kind of run: when attention gains most over an absent finding, and in how many seeds at each end."""
    lines = []
    for (kind, tool, label), steps in curves(rows, "gain/absent").items():
        if tool != "attention" or label != "all":
            continue
        means = {step: over_seeds(some) for step, some in steps.items()}
        best = max(means, key=lambda step: means[step][0])
        known = {
            step: sum((number(row.get("low")) or 0.0) > 0 for row in some)
            for step, some in sorted(steps.items(), reverse=True)
        }
        told = ", ".join(f"{step}: {count}" for step, count in known.items())
        lines.append(
            f"- **{markdown_cell(kind)}**, {means[best][3]} runs: attention gains most at timestep {best} "
            f"({text(means[best])}). Runs whose interval lies above 0, by timestep: {told}."
        )
    return "\n".join(lines) or NONE


def text(mean: tuple[float, float, float, int], digits: int = 2) -> str:
    """``0.31 [0.20, 0.42]``."""
    value, low, high = (f"{one:.{digits}f}" for one in mean[:3])
    return value + (f" [{low}, {high}]" if np.isfinite(mean[1]) else "")


def table(rows: Sequence[Row], figure: str, classes: bool) -> str:
    """A line a kind of run and tool (or, of attention, class), a column a timestep, drawing from left to right."""
    found = {
        name: steps
        for name, steps in curves(rows, figure).items()
        if (name[1] == "attention" and name[2] != "all") == classes and (classes or name[2] == "all")
    }
    steps = sorted({step for one in found.values() for step in one}, reverse=True)
    if not found:
        return NONE
    head = "finding" if classes else "map"
    lines = [f"| runs | {head} | " + " | ".join(map(str, steps)) + " |", "|---" * (2 + len(steps)) + "|"]
    for (kind, tool, label), line in sorted(found.items()):
        cells = [text(over_seeds(line[step])) if step in line else "" for step in steps]
        name = label if classes else MAPS.get(tool, tool)
        lines.append(f"| {markdown_cell(kind)} | {markdown_cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def schedules(rows: Sequence[Row]) -> str:
    """A line a kind of run and list of timesteps: what is drawn along it, and that less what even steps draw, by seed."""
    if not rows:
        return NONE
    lines = [
        "| runs | timesteps | gamma | steps | Frechet distance | less uniform's | CNR there | gain over an absent finding |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found: dict[tuple[str, str, str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["schedule"], row["gamma"], row["steps"]), {})[row["seed"]] = row
    for (kind, name, gamma, steps), runs in sorted(
        found.items(), key=lambda one: (one[0][0], _place(one[0][1]), one[0])
    ):
        even = next((one for (of, what, *_), one in found.items() if (of, what) == (kind, "uniform")), {})
        less = [_less(row, even[seed]) for seed, row in runs.items() if seed in even and name not in ("uniform", REAL)]
        cells = [_of(runs, "fd_domain", 1), text(over_seeds(less), 1) if less else ""]
        cells += [_of(runs, "cnr", 2), _of(runs, "gain_absent", 2)]
        lines.append(
            f"| {markdown_cell(kind)} | {NAMES.get(name, name)} | {gamma} | {steps} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def games(rows: Sequence[Row]) -> str:
    """A line a kind of run and map: areas of both games less those of a random order, mean over timesteps, by seed."""
    if not rows:
        return NONE
    areas = {(r["kind"], r["seed"], r["tool"], r["timestep"], r["game"]): number(r.get("value")) for r in rows}
    lines = [
        "| runs | map | deletion less random's (more is better) | insertion less random's (less is better) |",
        "|---|---|---|---|",
    ]
    for kind, tool in sorted({(kind, tool) for kind, _, tool, _, _ in areas if tool != RANDOM}):
        cells = []
        for game in ("deletion", "insertion"):
            gaps: dict[str, list[float]] = {}
            for (of, seed, what, step, played), value in areas.items():
                other = areas.get((of, seed, RANDOM, step, played))
                if (of, what, played) == (kind, tool, game) and value is not None and other is not None:
                    gaps.setdefault(seed, []).append(value - other)
            means = [{"seed": seed, "value": str(np.mean(some))} for seed, some in gaps.items()]
            cells.append(text(over_seeds(means), 3) if means else "")
        lines.append(f"| {markdown_cell(kind)} | {markdown_cell(MAPS.get(tool, tool))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


RANDOM = "random"
REAL = "real_vs_real"
#: Lists of timesteps in the order of the table -> what the page calls them.
NAMES = {
    "uniform": "uniform",
    "exponential_early": "exponential, early",
    "exponential_late": "exponential, late",
    "sampler": "the model's own sampler",
    REAL: "real against real",
}


def _place(name: str) -> int:
    return list(NAMES).index(name) if name in NAMES else len(NAMES)


def _less(row: Row, even: Row) -> Row:
    value, other = number(row.get("fd_domain")), number(even.get("fd_domain"))
    return {"seed": row["seed"], "value": "" if value is None or other is None else str(value - other)}


def _of(runs: Mapping[str, Row], figure: str, digits: int) -> str:
    given = [{"seed": seed, "value": row.get(figure, "")} for seed, row in runs.items()]
    return text(over_seeds(given), digits) if any(number(one["value"]) is not None for one in given) else ""


def page(file: Path, out: Path) -> None:
    """The parts of the page that are made, out of the rows."""
    rows = labelled(read_table(file))
    parts = {
        "answer": answer(rows),
        "gain": table(rows, "gain/absent", classes=False),
        "cnr": table(rows, "cnr", classes=False),
        "classes": table(rows, "gain/absent", classes=True),
        "games": games(labelled(read_table(file.with_name(GAMES)))),
        "schedules": schedules(read_table(file.with_name(SCHEDULES))),
    }
    fill(out, parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    return verbs_of(
        arguments, "Rows and page of visual analysis on phantoms.", {"rows": ROWS, "page": PAGE}, collect, page
    )


if __name__ == "__main__":
    sys.exit(main())
