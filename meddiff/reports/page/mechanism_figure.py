"""Where meaning goes, in one figure of the page's own charts: a column a kind of token, a row a measurement. Source: own."""

import json
import re

from meddiff.reports.page import charts
from meddiff.reports.page.charts import Spec
from meddiff.reports.page.figures import filled
from meddiff.reports.page.mechanism import BY_TIMESTEP, FIGURES, TOKENS
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import TOKENS as SAID

WIDTH, HEIGHT = 150, 76
#: What stands beside each row of :data:`FIGURES`.
ROWS = (
    "attention",
    "CNR, finding",
    "CNR, other finding",
    "CNR, confounder",
    "CNR, other's",
    "moved",
    "probe: finding",
    "probe: denied",
    "probe: side",
)
#: Beside the rows by timestep.
TIMESTEP_ROWS = ("attention", "CNR, finding")
ACROSS = {"mechanism": "training images", "mechanism_timesteps": "timestep of the noise, newest checkpoint"}


def mechanism_figure(tables: Tables) -> Spec | None:
    """Everything of ``lightning evaluate mechanism`` that can be drawn; None where there is nothing."""
    over_training = charts.curve("mechanism", "mechanism_means")
    lines = [(title, figure, over_training, "mechanism") for title, figure in zip(ROWS, FIGURES, strict=True)]
    figures = [figure for _, _, figure in BY_TIMESTEP.values()]
    by_timestep = [
        (title, figure, charts.timesteps(), "mechanism_timesteps")
        for title, figure in zip(TIMESTEP_ROWS, figures, strict=True)
    ]
    drawn = [line for line in (*lines, *by_timestep) if _keys(tables, line[1], line[3])]
    if not drawn:
        return None
    datasets: dict[str, object] = {}
    params: dict[str, object] = {}
    rows = []
    for place, (title, figure, chart, table) in enumerate(drawn):
        cells: list[Spec] = []
        there = _keys(tables, figure, table)
        for token in TOKENS:
            size: Spec = {"width": WIDTH, "height": HEIGHT}
            if not place:
                size["title"] = {"text": SAID[token], "fontSize": 12, "fontWeight": 500}
            if (key := figure.format(token)) not in there:  # columns stay below each other
                cells.append({"data": {"values": []}, "mark": "point", **size})
                continue
            spec = _numbered(filled(chart, tables, {"value": key}), len(datasets))
            datasets |= spec["datasets"]  # type: ignore[call-overload]
            params |= {one["name"]: one for one in spec["params"] if "value" in one}  # type: ignore[attr-defined]
            cell = {name: value for name, value in spec.items() if name in ("layer", "data", "encoding")}
            cell["layer"] = _layers(spec["layer"], title if not cells else "", first=not cells)  # type: ignore[arg-type]
            cells.append({**cell, **size})
        row: Spec = {"hconcat": cells, "resolve": {"scale": {"y": "shared"}}}
        if place + 1 == len(drawn) or drawn[place + 1][3] != table:
            row["title"] = {
                "text": ACROSS[table],
                "orient": "bottom",
                "anchor": "middle",
                "fontSize": 12,
                "fontWeight": 500,
            }
        rows.append(row)
    config = re.sub(r"var\(--(\w+)\)", lambda match: charts.LIGHT[match[1]], json.dumps(charts.CONFIG))
    more = {"config": json.loads(config), "datasets": datasets, "params": list(params.values())}
    return {
        "vconcat": rows,
        "resolve": {"scale": {"color": "shared", "shape": "shared"}},
        "background": "white",
        **more,
    }


def _numbered(spec: Spec, number: int) -> Spec:
    """A chart with tables of its own: the same name stands for other figures in the next one."""
    text = re.sub(r'"data": {"name": "(\w+)"}', rf'"data": {{"name": "\1_{number}"}}', json.dumps(spec))
    found: Spec = json.loads(text)
    tables: dict[str, object] = found["datasets"]  # type: ignore[assignment]
    return found | {"datasets": {f"{name}_{number}": rows for name, rows in tables.items()}}


def _layers(layers: list[dict[str, object]], title: str, first: bool) -> list[dict[str, object]]:
    """Layers for a small cell: one title a row, and what dashed lines are said in the first cell only."""
    found = []
    for layer in layers:
        encoding: dict[str, dict[str, object]] = layer["encoding"]  # type: ignore[assignment]
        if "text" in encoding and not first:
            continue
        for axis, said in (("y", title), ("x", "")):
            if "field" in encoding.get(axis, {}):
                encoding[axis]["title"] = said
        found.append(
            {name: value for name, value in layer.items() if name != "name"}
        )  # views of two cells may not share one
    return found


def _keys(tables: Tables, figure: str, table: str) -> set[str]:
    """The figures of one row that a table has."""
    columns = getattr(tables, table)
    keys = [figure.format(token) for token in TOKENS]
    return {key for key in keys if any(value is not None for value in columns.get(key, []))}
