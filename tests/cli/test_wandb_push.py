"""What is pushed to W&B, as its own library writes it down: panels, workspace and chart. Sending it needs an account."""

import json
import math
import re
from pathlib import Path

import pytest

from meddiff.cli.wandb_push import (
    AXIS,
    TABLE,
    panels_of,
    push,
    report,
    run_ids,
    tradeoff_preset,
    workspace,
)
from meddiff.common.errors import UserError
from meddiff.reports.page import charts
from meddiff.reports.page.prototypes import FIGURES
from meddiff.reports.page.wording import COLUMNS, direction, label

CHART = "lab/meddiff-tradeoff"
XRV = "fidelity/fid_xrv224"


def written(panel: object) -> dict[str, object]:
    """A panel as it is sent."""
    found: dict[str, object] = panel._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")  # type: ignore[attr-defined]
    return found


def test_the_trade_off_is_drawn_from_the_table_of_each_run() -> None:
    (panel,) = panels_of(CHART, XRV)["Trade-off"]
    config = written(panel)["config"]
    assert isinstance(config, dict)
    assert config["panelDefId"] == CHART
    assert config["fieldSettings"] == {name: name for name in COLUMNS}
    assert config["stringSettings"] == {"distance": label(XRV), "cnr": "macro CNR"}
    (runs,) = config["userQuery"]["queryFields"]
    (table,) = [field for field in runs["fields"] if field["name"] == "summaryTable"]
    # as the web editor writes it: the name is an argument, not a value (which the server ignores)
    assert table["args"] == [{"name": "tableKey", "value": TABLE}]
    assert "value" not in table


def test_every_line_is_over_images_and_of_names_that_we_log() -> None:
    lines = [
        written(panel)["config"]
        for panels in panels_of(CHART).values()
        for panel in panels
        if type(panel).__name__ == "LinePlot"
    ]
    assert len(lines) == 11
    assert {config["xAxis"] for config in lines} == {AXIS}  # type: ignore[index]
    for config in lines:
        for key in config["metrics"]:  # type: ignore[index]
            plain = re.sub(r"/(prior|real_vs_real)/", "/", key)
            if "prototype" in key:
                assert plain.rpartition("/")[2] in FIGURES, key
                continue
            assert label(plain) != plain or plain.startswith(("train/", "val/", "learning_rate/")), key
            assert direction(plain) or plain.startswith("learning_rate/"), key


def test_the_configuration_is_asked_for_by_flat_names() -> None:
    """Of a sweep's `model.freeze_text_encoder` W&B makes a nested name that is not there."""
    text = json.dumps([written(panel) for panel in panels_of(CHART)["Runs"]])
    assert re.findall(r"config:([\w.]+)", text) == ["freeze_text_encoder.value", "prompt.value"]
    assert "summary:cnr_at_best_distance" in text


def test_the_workspace_has_the_sections_and_only_the_runs_that_are_meant() -> None:
    pytest.importorskip("wandb_workspaces")
    all_of_them, two = (workspace("lab", "project", CHART, ids) for ids in ((), ("abc", "def")))
    model = two._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    sections = model["spec"]["section"]["panelBankConfig"]["sections"]
    assert [one["name"] for one in sections] == list(panels_of(CHART))
    assert model["spec"]["section"]["settings"]["xAxis"] == AXIS
    assert model["spec"]["section"]["settings"]["maxRuns"] == 100, "W&B's own is 10"
    (runset,) = model["spec"]["section"]["runSets"]
    assert "abc" in json.dumps(runset)
    assert "abc" not in json.dumps(all_of_them._to_model().model_dump(by_alias=True, mode="json"))


@pytest.mark.parametrize("version", ["5.8", "6.4"])
def test_the_chart_draws_rows_as_the_panel_gives_them(version: str) -> None:
    """Columns of other names in the places, rows with W&B's own name and colour, a row without a number left out."""
    convert = pytest.importorskip("vl_convert")
    text = json.dumps(tradeoff_preset())
    assert set(re.findall(r"\$\{field:(\w+)\}", text)) == set(COLUMNS)
    for name in COLUMNS:
        text = text.replace(f"${{field:{name}}}", f"table_{name}")
    rows = [
        {
            **{"name": run, "color": "#123456", "table_run": run, "table_encoder": encoder, "table_prompt": "label"},
            **{"table_images": i, "table_distance": 9.0 - i, "table_cnr": 0.1 * i},
        }
        for run, encoder in (("a", "frozen"), ("b", "learnable"))
        for i in range(3)
    ]
    spec = {**json.loads(text), "width": 300, "height": 200}

    def drawn(values: list[dict[str, object]]) -> str:
        svg: str = convert.vegalite_to_svg({**spec, "datasets": {"wandb": values}}, vl_version=version)
        return re.sub(r"clip\d+", "clip", svg)  # counted through the process

    svg = drawn(rows)
    assert all(charts.LIGHT[encoder] in svg for encoder in ("frozen", "learnable"))
    nothing = {**rows[0], "table_images": 9, "table_cnr": None}
    assert drawn([*rows, nothing]) == svg
    # the control: one more number is one more point
    assert drawn([*rows, {**rows[0], "table_images": 9, "table_cnr": math.pi}]) != svg


def test_what_cannot_be_pushed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    (run / "wandb" / "offline-run-1-abc").mkdir(parents=True)
    with pytest.raises(UserError, match="was not logged to W&B"):
        run_ids([run])
    (run / "wandb_id.txt").write_text("abc\n")
    with pytest.raises(UserError, match=r"`wandb sync .*offline-run-1-abc` first"):
        run_ids([run])
    (run / "wandb" / "offline-run-1-abc" / "run-abc.wandb.synced").touch()
    assert run_ids([run]) == ["abc"]
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match="Nobody is logged in to W&B here"):
        push([run], "project", "lab")


def test_the_report_says_how_each_section_is_read_and_shows_the_same_panels() -> None:
    page = report("lab", "project", CHART, ["abc", "def"], XRV)
    kinds = [type(block).__name__ for block in page.blocks]
    assert kinds == ["TableOfContents"] + ["H1", "P", "PanelGrid"] * len(panels_of(CHART))
    for grid, (name, panels) in zip(page.blocks[3::3], panels_of(CHART, XRV).items(), strict=True):
        (runset,) = grid.runsets
        assert runset.filters == "ID in ['abc', 'def']"
        shown, wanted = ([{**written(one), "__id__": ""} for one in some] for some in (grid.panels, panels))
        assert [{**one, "layout": None} for one in shown] == [{**one, "layout": None} for one in wanted], name
