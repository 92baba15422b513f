"""The charts as files for a README or a paper: SVG, PNG and PDF, without a browser.

vl-convert (``pip install 'meddiff-tradeoff[export]'``) draws what the page draws, in the light colours. Source: own.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.reports.page import charts
from meddiff.reports.page.charts import LIGHT, Spec
from meddiff.reports.page.derived import aliased
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import label

WIDTH, VERSION = 640, "6.4"


def filled(spec: Spec, tables: Tables, fields: Mapping[str, str] | None = None) -> Spec:
    """A chart that stands for itself: with rows, names of figures and light colours; a layer without rows is left out.

    Args:
        fields: name that the chart knows -> measured name, such as ``{"value": "grounding/macro_cnr"}``.
    """
    fields = fields or {}
    logs = {name for name, key in fields.items() if tables.is_log(key)}
    said = {name: label(key) + (", log scale" if name in logs else "") for name, key in fields.items()}
    text = re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], json.dumps(charts.titled(spec, said)))
    found: Spec = json.loads(text)
    rows = {name: aliased(getattr(tables, name), fields) for name in charts.tables_of(found)}
    layers = found["layer"]
    assert isinstance(layers, list)

    def drawn(layer: dict[str, object]) -> bool:
        known = re.findall(r"isValid\(datum\.(\w+)\)", json.dumps(layer))
        where = layer.get("data", found.get("data"))
        assert isinstance(where, dict)
        return any(all(row.get(name) is not None for name in known) for row in rows[where["name"]])

    for layer in layers:
        for axis in ("x", "y"):
            channel = layer["encoding"].get(axis, {})
            if re.sub(r"_(low|high)$", "", str(channel.get("field"))) in logs:
                channel["scale"] = {**channel.get("scale", {}), "type": "log", "nice": False}
                channel["scale"].pop("zero", None)
    found |= {"layer": [layer for layer in layers if drawn(layer)], "datasets": rows}
    return found | {"width": WIDTH, "autosize": {"type": "pad"}}


def write_figures(tables: Tables, folder: Path) -> list[Path]:
    """Each chart that has something to draw, in three formats.

    Raises:
        UserError: vl-convert is not installed, or the folder cannot be written.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise UserError("Figures need vl-convert: pip install 'meddiff-tradeoff[export]'.") from error
    many = bool(tables.means)
    wanted = {
        "tradeoff": (charts.tradeoff(), {"distance": tables.distance, "cnr": tables.cnr}),
        "over_training": (charts.curve(), {"value": tables.cnr}),
        "distance_over_training": (charts.curve(), {"value": tables.distance}),
        "loss": (charts.loss(), {}),
        "findings": (charts.dots("class_means", "finding"), {}),
        "words": (charts.dots("word_means", "word"), {}),
        "captions": (charts.dots("prompt_means", "captions", label(tables.cnr)), {}),
    }
    written = []
    for name, (chart, fields) in wanted.items():
        spec = filled(chart, tables, fields)
        if not spec["layer"] or not (name != "tradeoff" or tables.rows_with(*fields.values())):
            continue
        spec["params"] = [{**p, "value": many} if p["name"] == "quiet" else p for p in spec["params"]]  # type: ignore[attr-defined]
        drawings = {
            "svg": vl_convert.vegalite_to_svg(spec, vl_version=VERSION).encode(),
            "png": vl_convert.vegalite_to_png(spec, vl_version=VERSION, scale=2),
            "pdf": vl_convert.vegalite_to_pdf(spec, vl_version=VERSION),
        }
        for kind, content in drawings.items():
            path = folder / f"{name}.{kind}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_open(path, "wb") as stream:
                    stream.write(content)
            except OSError as error:
                raise UserError(f"{path} cannot be written ({error.strerror}): name another folder.") from error
            written.append(path)
    return written
