"""Our charts as custom charts of W&B: the same Vega-Lite, with places for columns and words that its panel fills in.

Source: own; the format is W&B's documented one, spec/sweeps_dashboard.md 2.
"""

import json
import re

from meddiff.reports.page.charts import LIGHT, Spec

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"


def wandb_preset(spec: Spec) -> Spec:
    """A chart of :mod:`meddiff.reports.page.charts` as the spec of a W&B preset.

    A panel has one table. So of the layers those stay that draw the chart's own (evaluations where there are several): what the
    page lays over it (means over seeds, controls, the paper's points) does not go along.
    """
    spec = json.loads(re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], json.dumps(spec)))
    layers = spec.get("layer")
    assert isinstance(layers, list)
    own = spec.get("data") or {"name": "evaluations"}
    spec["layer"] = [
        {k: v for k, v in layer.items() if k != "data"} for layer in layers if layer.get("data", own) == own
    ]
    derived = set(re.findall(r'"as": "(\w+)"', json.dumps(spec)))
    kept = {name: value for name, value in spec.items() if name not in ("datasets", "config", "usermeta", "data")}
    preset = _renamed(kept, derived)
    assert isinstance(preset, dict)
    for layer in preset["layer"]:
        places = [
            channel for axis in ("x", "y") if (channel := layer["encoding"].get(axis, {})).get("type") == "quantitative"
        ]
        numbers = sorted({str(channel["field"]) for channel in places})
        known = " && ".join(f"isNumber(datum['{name}']) && isFinite(datum['{name}'])" for name in numbers)
        layer["transform"] = [*([{"filter": known}] if known else []), *layer.get("transform", [])]
    fit = {"type": "fit", "contains": "padding"}
    return preset | {"$schema": SCHEMA, "data": {"name": "wandb"}, "width": "container", "autosize": fit}


def _renamed(part: object, derived: set[str], name: str = "") -> object:
    if isinstance(part, dict):
        return {key: _renamed(value, derived, key) for key, value in part.items()}
    if isinstance(part, list):
        return [_renamed(value, derived, name) for value in part]
    if isinstance(part, str) and name in ("field", "fields", "groupby", "x2", "y2"):
        return part if part in derived else f"${{field:{part}}}"
    if isinstance(part, str) and name in ("filter", "test", "expr"):
        return re.sub(
            r"datum\.(\w+)", lambda match: match[0] if match[1] in derived else f"datum['${{field:{match[1]}}}']", part
        )
    return part
