"""What `lightning evaluate mechanism` left in run folders, as rows for the charts. Source: own; docs/mechanism.md."""

import math
from collections.abc import Sequence

from meddiff.reports.page.derived import Row, seed_means
from meddiff.runs.folder import Run
from meddiff.runs.values import number

#: Tokens that are drawn beside each other: where meaning is, and where it may go.
TOKENS = ("finding", "function", "end", "padding")
#: Figures that are drawn below each other; {} is the token. What stands under "other" is the control of the line above.
FIGURES = (
    "mechanism/attention/{}",
    "mechanism/cnr/{}/finding",
    "mechanism/cnr/{}/other_finding",
    "mechanism/cnr/{}/confounder",
    "mechanism/cnr/{}/other_confounder",
    "mechanism/moved/{}",
    "mechanism/probe/named/{}",
    "mechanism/probe/denied/{}",
    "mechanism/probe/side/{}",
)
KEYS = tuple(figure.format(token) for figure in FIGURES for token in TOKENS)
#: Of these also by timestep: table -> (column that names the token, column of the value, figure).
BY_TIMESTEP = {
    "_attention": ("place", "share", "mechanism/attention/{}"),
    "_cnr": ("role", "value", "mechanism/cnr/{}/finding"),
}
TIMESTEP_KEYS = tuple(figure.format(token) for _, _, figure in BY_TIMESTEP.values() for token in TOKENS)
#: Controls among the figures -> what a dashed line says.
CONTROLS = {"chance": "chance", "untrained": "untrained tower", "apart": "two captions"}


def of_run(run: Run) -> list[Row]:
    """:func:`stages` with what is drawn alone: a page about a hundred runs must stay small."""
    wanted = {"images", "step", *(f"{key}{end}" for key in KEYS for end in ("", " low", " high"))}
    return [{name: value for name, value in row.items() if name in wanted} for row in stages(run)]


def stages(run: Run) -> list[Row]:
    """One row a checkpoint: ``images``, ``step`` and the figures as ``mechanism/NAME``, with their ends."""
    found: dict[int, Row] = {}
    for cells in run.mechanism():
        images, value = number(cells.get("images")), number(cells.get("value"))
        if images is None or value is None:
            continue
        row = found.setdefault(int(images), {"images": int(images), "step": int(number(cells.get("step")) or 0)})
        key = f"mechanism/{cells.get('figure')}"
        row |= {key: value, f"{key} low": number(cells.get("low")), f"{key} high": number(cells.get("high"))}
    return [found[images] for images in sorted(found)]


def means(runs: Sequence[tuple[Row, Run]]) -> list[Row]:
    """Over runs that differ by their seed alone."""
    values = [
        (who, int(float(row["images"] or 0)), {key: float(row[key] or 0.0) for key in KEYS if row.get(key) is not None})
        for who, run in runs
        for row in stages(run)
    ]
    return seed_means(values, KEYS)


def timesteps(run: Run) -> list[Row]:
    """One row a timestep of the newest checkpoint, its mean over layers, under the names of :data:`TIMESTEP_KEYS`."""
    found: dict[int, dict[str, list[float]]] = {}
    for table, (token, column, figure) in BY_TIMESTEP.items():
        rows = run.mechanism(table)
        newest = max((number(cells.get("images")) or 0 for cells in rows), default=0)
        for cells in rows:
            timestep, value = number(cells.get("timestep")), number(cells.get(column))
            key = figure.format(cells.get(token))
            wanted = cells.get("target", "finding") == "finding" and key in TIMESTEP_KEYS
            if timestep is not None and value is not None and wanted and number(cells.get("images")) == newest:
                at = found.setdefault(int(timestep), {"images": [newest]})
                at.setdefault(key, []).append(value)
    return [
        {"timestep": timestep, **{key: math.fsum(values) / len(values) for key, values in at.items()}}
        for timestep, at in sorted(found.items())
    ]


def references(runs: Sequence[Run]) -> list[tuple[str, dict[str, list[float]]]]:
    """What probes and movements are read against: chance, a tower that was never trained, how far two captions lie apart in
    the base tower; values of all runs by figure."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for row in stages(run)[:1]:
            for name, text in CONTROLS.items():
                for key in KEYS:
                    if isinstance(value := row.get(f"{key}/{name}"), float):
                        found.setdefault(text, {}).setdefault(key, []).append(value)
    return sorted(found.items())
