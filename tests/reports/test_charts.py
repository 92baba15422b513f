"""The charts: what they draw, that print and W&B show the same, and the script that draws them."""

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddiff.reports.page import charts
from meddiff.reports.page.charts import Spec
from meddiff.reports.page.figures import filled, write_figures
from meddiff.reports.page.report import open_runs
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wandb_preset import wandb_preset
from tests.builders.run_folders import make_run
from tools.make_vega_bundle import TARGET, bundle

vl_convert = pytest.importorskip("vl_convert")
ALL = {
    "tradeoff": charts.tradeoff(),
    "curve": charts.curve(),
    "loss": charts.loss(),
    "class": charts.dots("class_means", "finding"),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("runs")
    sides = {"frozen": True, "learnable": False}
    runs = [
        make_run(folder / side / f"t{seed}", side, frozen=frozen, seed=seed, overlays=0, samples=0, evaluations=3)
        for side, frozen in sides.items()
        for seed in range(2)
    ]
    return Tables(open_runs(runs))


def encodings(part: object) -> Iterator[dict[str, dict[str, object]]]:
    if isinstance(part, dict):
        if "encoding" in part:
            yield part["encoding"]
        for value in part.values():
            yield from encodings(value)
    elif isinstance(part, list):
        for value in part:
            yield from encodings(value)


@pytest.mark.parametrize("name", ALL)
def test_a_chart_is_one_view_without_rows_whose_axes_say_what_they_are(name: str) -> None:
    text = json.dumps(ALL[name])
    assert '"values": [{' not in text
    assert '"datasets"' not in text
    assert len(text) < 20_000
    assert not {"hconcat", "vconcat", "concat", "facet", "repeat", "row", "column"} & set(re.findall(r'"(\w+)":', text))
    for encoding in encodings(ALL[name]):
        for channel in {"x", "y", "color", "shape"} & encoding.keys():
            assert "title" in encoding[channel] or "value" in encoding[channel], (channel, encoding[channel])
        assert all("title" in tip for tip in encoding.get("tooltip", []))  # type: ignore[call-overload]
    assert ALL[name]["description"]


@pytest.mark.parametrize("name", ALL)
def test_a_parameter_that_nobody_sets_means_everything(name: str) -> None:
    values = {p["name"]: p["value"] for p in ALL[name]["params"] if "value" in p}  # type: ignore[attr-defined, index]
    assert values == {"shown": None, "until": None, "lo": None, "hi": None, "quiet": False, "named": ""}


def test_colour_is_the_encoder_in_two_hues_and_shape_the_prompt() -> None:
    for spec in ALL.values():
        for encoding in encodings(spec):
            for channel, field in (("color", "encoder"), ("shape", "prompt")):
                if "field" in encoding.get(channel, {}):
                    assert encoding[channel]["field"] == field
    scale = next(e["color"]["scale"] for e in encodings(ALL["tradeoff"]) if "field" in e.get("color", {}))
    assert scale == {
        "domain": ["frozen", "learnable", "other"],
        "range": ["var(--frozen)", "var(--learnable)", "var(--other)"],
    }


def test_better_images_lie_to_the_right_and_better_grounding_above(tables: Tables) -> None:
    spec = filled(charts.tradeoff(), tables, {"distance": tables.distance, "cnr": tables.cnr})
    text = vl_convert.vegalite_to_svg(spec, vl_version="6.4")
    labels = [
        [(float(x), float(y), float(t.replace(",", "").replace("−", "-"))) for x, y, t in axis_labels(text, place)]
        for place in (0, 1)
    ]
    across, up = labels
    assert [value for _, _, value in sorted(across)] == sorted((value for _, _, value in across), reverse=True)
    assert [value for _, _, value in sorted(up, key=lambda one: one[1])] == sorted((v for _, _, v in up), reverse=True)


def axis_labels(svg: str, place: int) -> list[tuple[str, str, str]]:
    """x, y and text of the labels of an axis."""
    groups = re.findall(r'<g class="mark-text role-axis-label"[^>]*>(.*?)</g>', svg, re.S)
    group = [part for part in groups if "<text" in part][place]
    return re.findall(r"<text[^>]*translate\(([-\d.]+),([-\d.]+)\)[^>]*>([^<]+)</text>", group)


def rows_for(spec: Spec, tables: Tables) -> Spec:
    fields = {"distance": tables.distance, "cnr": tables.cnr, "value": tables.cnr}
    wanted = {name: key for name, key in fields.items() if f"${{string:{name}}}" in json.dumps(spec)}
    return filled(spec, tables, wanted)


def filled_back(preset: Spec, local: Spec) -> Spec:
    """What W&B's panel does: places become columns (under other names here, as in any panel) and words."""
    text = json.dumps(preset)
    table = (local.get("data") or {"name": "evaluations"})["name"]  # type: ignore[index]
    rows = local["datasets"][table]  # type: ignore[index]
    text = re.sub(r"\$\{field:(\w+)\}", r"c_\1", text)
    found: Spec = json.loads(text)
    found["data"] = {"values": [{f"c_{name}": value for name, value in row.items()} for row in rows]}
    return found | {"config": local["config"], "width": 600, "autosize": local["autosize"]}


def own_layers(local: Spec, spec: Spec) -> Spec:
    """Of a chart with several tables, what draws its own."""
    found = copy.deepcopy(local)
    own = found.get("data") or {"name": "evaluations"}
    found["layer"] = [layer for layer in found["layer"] if layer.get("data", own) == own]  # type: ignore[attr-defined]
    return found | {"width": 600, "params": spec["params"]}  # means, which dim the runs, are not there


@pytest.mark.parametrize("version", ["5.8", "5.21", "6.4"])
@pytest.mark.parametrize("name", ALL)
def test_in_wandb_a_chart_looks_as_here(
    name: str, version: str, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meddiff.reports.page.tables.LOG_RATIO", 1e9)  # a panel there has its own switch for it
    local = own_layers(rows_for(ALL[name], tables), ALL[name])
    preset = wandb_preset(ALL[name])
    assert preset["data"] == {"name": "wandb"}
    assert "var(--" not in json.dumps(preset)
    assert set(re.findall(r"\$\{(\w+):[\w-]+\}", json.dumps(preset))) <= {"field", "string"}
    titles = {
        word: charts.titled({"t": f"${{string:{word}}}"}, titles_of(tables))["t"]
        for word in ("distance", "cnr", "value")
    }
    again = filled_back(charts.titled(preset, {k: str(v) for k, v in titles.items()}), local)
    pictures = []
    for place, spec in enumerate((local, again)):
        file = tmp_path / f"{place}.png"
        file.write_bytes(vl_convert.vegalite_to_png(spec, vl_version=version))
        pictures.append(np.asarray(Image.open(file)))
    assert pictures[0].std() > 5  # something is drawn
    assert np.array_equal(pictures[0], pictures[1])
    other = copy.deepcopy(again)
    other["data"]["values"] = other["data"]["values"][:-1]  # type: ignore[index]
    (tmp_path / "2.png").write_bytes(vl_convert.vegalite_to_png(other, vl_version=version))
    assert not np.array_equal(pictures[0], np.asarray(Image.open(tmp_path / "2.png"))), "control: a row less shows"


def titles_of(tables: Tables) -> dict[str, str]:
    from meddiff.reports.page.wording import label

    return {"distance": label(tables.distance), "cnr": label(tables.cnr), "value": label(tables.cnr)}


def test_the_preset_has_the_form_of_the_one_that_was_seen() -> None:
    """Against the golden: places in fields and expressions, our own derived columns left alone."""
    preset = json.dumps(wandb_preset(charts.tradeoff()))
    assert "datum['${field:run}']" in preset
    assert '"field": "${field:images}"' in preset
    assert "${string:distance}" in preset
    assert "${field:best}" not in preset
    assert "datum.best" in preset
    assert "isFinite(datum['${field:cnr}'])" in preset
    assert wandb_preset(charts.tradeoff())["$schema"] == "https://vega.github.io/schema/vega-lite/v5.json"


def test_figures_for_print(tables: Tables, tmp_path: Path) -> None:
    files = {file.name for file in write_figures(tables, tmp_path / "figures")}
    names = {
        f"{chart}.{kind}"
        for chart in ("tradeoff", "over_training", "loss", "findings")
        for kind in ("svg", "png", "pdf")
    }
    assert names <= files
    svg = (tmp_path / "figures" / "tradeoff.svg").read_text()
    assert "var(--" not in svg
    assert charts.LIGHT["frozen"] in svg
    assert "location prior" in svg
    assert (tmp_path / "figures" / "tradeoff.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(tmp_path / "figures" / "tradeoff.png").size[0] > 1000


def test_the_script_is_what_vl_convert_makes_wrapped() -> None:
    text = TARGET.read_text(encoding="utf-8")
    assert "\n*/\n(()=>{" in text
    assert text.startswith("/*!\nVega 6.2: Copyright (c) 2015-2023, University of Washington Interactive Data Lab.")
    assert "</script" not in text
    digests = [hashlib.sha256(one.encode()).hexdigest() for one in (text, bundle())]
    assert digests[0] == digests[1], "vl_convert has another version: python tools/make_vega_bundle.py"
