"""The charts as files for a README or a paper: SVG, PNG and PDF, without a browser.

vl-convert (``pip install 'meddiff-tradeoff[export]'``) draws what the page draws, in the light colours. Source: own.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.reports.page import charts, saliency
from meddiff.reports.page.charts import LIGHT, Spec
from meddiff.reports.page.derived import Columns, aliased
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
    found = json.loads(text)
    rows = {name: aliased(_table(tables, name), fields) for name in charts.tables_of(found)}
    drawn = []
    for layer in found["layer"]:
        known = re.findall(r"isValid\(datum\.(\w+)\)", json.dumps(layer))
        if any(
            all(row.get(one) is not None for one in known) for row in rows[layer.get("data", found.get("data"))["name"]]
        ):
            drawn.append(layer)
        for channel in (layer["encoding"].get(axis, {}) for axis in ("x", "y")):
            if str(channel.get("field")).removesuffix("_low") in logs:
                channel["scale"] = {k: v for k, v in channel.get("scale", {}).items() if k != "zero"}
                channel["scale"] |= {"type": "log", "nice": False}
    params = [{**one, "value": bool(tables.means)} if one["name"] == "quiet" else one for one in found["params"]]
    more = {"params": params, "width": WIDTH, "autosize": {"type": "pad"}}
    return found | {"layer": drawn, "datasets": rows} | more


def _table(tables: Tables, name: str) -> Columns:
    found: Columns = tables.by_timestep[name] if name in saliency.SEVERAL else getattr(tables, name)
    return found


def write_figures(tables: Tables, folder: Path, further: Mapping[str, Spec] | None = None) -> list[Path]:
    """Each chart that has something to draw, in three formats.

    Args:
        further: figures that are whole already, by name.

    Raises:
        UserError: vl-convert is not installed, or the folder cannot be written.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise UserError("Figures need vl-convert: pip install 'meddiff-tradeoff[export]'.") from error
    looked = {"distance": tables.distance, "cnr": tables.cnr}
    wanted: dict[str, tuple[Spec, dict[str, str]]] = {
        "tradeoff": (charts.tradeoff(), looked),
        "over_training": (charts.curve(), {"value": tables.cnr}),
        "distance_over_training": (charts.curve(), {"value": tables.distance}),
        "loss": (charts.loss(), {}),
        "findings": (charts.dots("class_means", "finding"), {}),
        "words": (charts.dots("word_means", "word"), {}),
        "captions": (charts.dots("prompt_means", "captions", label(tables.cnr)), {}),
    }
    written = []
    drawn = {name: filled(chart, tables, fields) for name, (chart, fields) in wanted.items()}
    # nothing, or what figures are read against alone
    drawn = {name: spec for name, spec in drawn.items() if len(spec["layer"]) >= (2 if wanted[name][1] else 1)}  # type: ignore[arg-type]
    for name, spec in {**drawn, **(further or {})}.items():
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VERSION).encode()
        drawings = {"svg": svg, "png": vl_convert.vegalite_to_png(spec, vl_version=VERSION, scale=2)}
        for kind, content in {**drawings, "pdf": vl_convert.vegalite_to_pdf(spec, vl_version=VERSION)}.items():
            written.append(folder / f"{name}.{kind}")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_open(written[-1], "wb") as stream:
                    stream.write(content)
            except OSError as error:
                raise UserError(f"{folder} cannot be written ({error.strerror}): name another folder.") from error
    return written
