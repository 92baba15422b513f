"""What `lightning explain` left in run folders, as rows for the charts. Source: own; docs/visual_analysis.md."""

from collections.abc import Callable, Sequence

from meddiff.reports.page.derived import Columns, Row
from meddiff.reports.page.wording import value_text
from meddiff.runs.folder import Run
from meddiff.runs.values import number

ROOM = "saliency"
#: Rows of tables that are drawn by tool, and by class.
MICRO = "all"
#: Figures that are drawn of every tool: column of the table -> name in a key.
FIGURES = {"cnr": "cnr", "cnr/absent": "cnr_absent", "gain/absent": "gain_absent", "auroc": "auroc", "top1": "top1"}
#: The tool whose curves are drawn by class too.
BY_CLASS = "attention"
#: What stands in a chart of several tools as a line for all timesteps.
PRIOR = "prior"


def timesteps(run: Run) -> list[Row]:
    """One row a timestep: ``saliency/TOOL/FIGURE`` and, of attention, ``saliency/attention/FIGURE/CLASS``, with their ends."""
    found: dict[int, Row] = {}
    for cells in run.saliency():
        timestep, value = number(cells.get("timestep")), number(cells.get("value"))
        figure, label, tool = FIGURES.get(cells.get("figure", "")), cells.get("class", ""), cells.get("tool", "")
        by_class = label not in (MICRO, "macro") and tool == BY_CLASS and figure in ("cnr", "gain_absent")
        if timestep is None or value is None or figure is None or cells.get("layer") != MICRO:
            continue
        if label != MICRO and not by_class:
            continue
        row = found.setdefault(int(timestep), {"timestep": int(timestep), "images": number(cells.get("images"))})
        key = "/".join((ROOM, tool, figure) if label == MICRO else (ROOM, tool, figure, label))
        row |= {key: value, f"{key} low": number(cells.get("low")), f"{key} high": number(cells.get("high"))}
    return [found[timestep] for timestep in sorted(found)]


def of_tools(run: Run) -> list[Row]:
    """One row a tool and timestep: ``cnr``, ``cnr_low``, ``cnr_high``, ``gain``, ``gain_low``, ``gain_high``.

    The location prior knows no timestep: it stands at each."""
    found: dict[tuple[str, int], Row] = {}
    rows = [row for row in run.saliency() if row.get("layer") == MICRO and row.get("class") == MICRO]
    all_steps = sorted({int(step) for row in rows if (step := number(row.get("timestep"))) is not None})
    for cells in rows:
        name = {"cnr": "cnr", "gain/absent": "gain"}.get(cells.get("figure", ""))
        value, tool, step = number(cells.get("value")), cells.get("tool", ""), number(cells.get("timestep"))
        if name is None or value is None:
            continue
        for timestep in [int(step)] if step is not None else all_steps if tool == PRIOR else []:
            row = found.setdefault((tool, timestep), {"tool": tool, "timestep": timestep})
            ends = {} if tool == PRIOR else {f"{name}_{end}": number(cells.get(end)) for end in ("low", "high")}
            row |= {name: value, **ends}
    return [found[key] for key in sorted(found)]


def of_games(run: Run) -> list[Row]:
    """One row a tool, game, timestep and share of positions taken."""
    return [
        {"tool": cells["tool"], "game": cells["game"], "timestep": number(cells.get("timestep")), "taken": taken}
        | {"value": number(cells.get("value"))}
        for cells in run.saliency("_games")
        if (taken := number(cells.get("taken"))) is not None and cells.get("tool") and cells.get("game")
    ]


def of_relevance(run: Run) -> list[Row]:
    """One row a kind of token and timestep: its share of relevance with its ends."""
    return [
        {"tokens": cells["tokens"], "timestep": number(cells.get("timestep"))}
        | {
            name: number(cells.get(end))
            for name, end in (("value", "value"), ("value_low", "low"), ("value_high", "high"))
        }
        for cells in run.saliency("_relevance")
        if cells.get("tokens")
    ]


#: Name of a table with several lines a run -> its rows.
SEVERAL: dict[str, Callable[[Run], list[Row]]] = {
    "saliency_tools": of_tools,
    "saliency_games": of_games,
    "saliency_relevance": of_relevance,
}


def keys_of(table: Columns, *figures: str) -> list[str]:
    """The figures among the columns of the table of timesteps, those of all classes first."""
    found = [key for key in table if key.startswith(f"{ROOM}/") and not key.endswith((" low", " high"))]
    chosen = [key for key in found if not figures or key.split("/")[2] in figures]
    return sorted(chosen, key=lambda key: (key.count("/"), key))


def best(run: Run, figure: str = "gain/absent") -> list[dict[str, str]]:
    """Rows of ``saliency_when``: each tool over all classes, then attention by class."""
    rows = [
        {**row, **{name: value_text(number(row.get(name))) for name in ("value", "low", "high")}}
        for row in run.saliency("_when")
        if row.get("figure") == figure and row.get("layer") == MICRO
    ]
    chosen = [row for row in rows if row.get("class") == MICRO or row.get("tool") == BY_CLASS]
    return sorted(
        (row for row in chosen if row.get("class") != "macro"),
        key=lambda row: (row.get("class") != MICRO, row.get("tool", ""), row.get("class", "")),
    )


def runs_with(runs: Sequence[Run]) -> list[Run]:
    """Those that were explained."""
    return [run for run in runs if run.saliency()]
