"""What a run leaves with W&B, read back from its own file: one row an evaluation, over images, with all that belongs to it."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from callbacks.run_facts import run_facts
from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import read_table
from tests.builders.command import child
from tests.builders.drawn_parts import make_classifier
from tests.builders.tiny import make_shards
from tests.builders.tracked import only_run, tracked_config, tracked_fit
from tests.builders.wandb_records import history, last_values, offline_run, wandb_records
from tools.glossary import unexplained

Rows = list[dict[str, object]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> tuple[Path, Path, Path]:
    """Shards, autoencoder, classifier."""
    folder = tmp_path_factory.mktemp("tracked")
    shards = make_shards(folder / "shards", vae_folder, n=64, val=4, grounding=12, fidelity=8)
    return shards, vae_folder, make_classifier(folder / "classifier")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, parts: tuple[Path, Path, Path]) -> Path:
    learnable = ["--model.freeze_text_encoder", "false", "--model.text_encoder_learning_rate", "2e-4"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_JOB_TYPE"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_MODE", "offline")
        return tracked_fit(tmp_path_factory.mktemp("run"), *parts, *learnable, "--seed_everything", "5")


@pytest.fixture(scope="module")
def evaluations(run: Path) -> Rows:
    return [row for row in history(run) if "grounding/cnr" in row]


def media(run: Path) -> Path:
    return offline_run(run) / "files"


def table(run: Path, row: dict[str, object], name: str) -> Rows:
    """Rows of a table that a row of history names."""
    found = json.loads((media(run) / str(row[f"{name}.path"])).read_text())
    return [dict(zip(found["columns"], line, strict=True)) for line in found["data"]]


def saliency(run: Path, images: int) -> float:
    """The CNR of attention over all phrases, as the run's own table has it."""
    rows = read_table(run / "saliency" / f"{images:09d}.csv")
    chosen = {"tool": "attention", "layer": "all", "class": "all", "figure": "cnr"}
    (row,) = [row for row in rows if all(row[name] == value for name, value in chosen.items())]
    return float(row["value"])


def test_one_row_an_evaluation_holds_both_sides_and_all_that_is_shown(run: Path, evaluations: Rows) -> None:
    written = read_table(run / "tradeoff.csv")
    assert [row["images"] for row in evaluations] == [0, 16, 32] == [int(row["images"]) for row in written]
    for row, line in zip(evaluations, written, strict=True):
        for name in ("grounding/cnr", "grounding/macro_cnr", "fidelity/fd_domain"):
            assert row[name] == pytest.approx(float(line[name]), rel=1e-5)
        for shown in ("grounding/attention", "fidelity/samples", "grounding/phrases", "tradeoff_table"):
            assert any(key.startswith(f"{shown}.") for key in row), shown
        assert row["saliency/attention/cnr/t381"] == pytest.approx(saliency(run, int(str(row["images"]))), rel=1e-5)
        assert any(key.startswith("saliency/") and key.endswith(".filenames") for key in row), "its panels"
    # the source of every report has one row too, and nothing but numbers
    logged = [row for row in read_metrics(run / "metrics.jsonl") if "grounding/cnr" in row]
    assert [row["fidelity/fd_domain"] for row in logged] == [row["fidelity/fd_domain"] for row in evaluations]
    assert not [key for row in logged for key in row if "prior" in key or key.startswith("grounding/attention")]


def test_every_curve_has_images_as_its_axis_by_its_exact_name(run: Path) -> None:
    rows, defined = history(run), {m.metric.name: m.metric for m in wandb_records(run, "metric") if m.metric.name}
    keys = {key.split(".")[0] for row in rows for key in row if not key.startswith("_")} - {
        "images",
        "trainer/global_step",
    }
    keys = {key.removesuffix("_table") if key == "tradeoff_table" else key for key in keys}
    assert {"train/loss", "val/loss", "learning_rate/unet", "grounding/Edema/cnr", "fidelity/fd_domain"} <= keys
    assert {key for key in keys if defined[key].step_metric != "images"} == set()
    # the control: Lightning's pattern is there as well, and says otherwise of what has no exact name
    globs = {m.metric.glob_name: m.metric.step_metric for m in wandb_records(run, "metric") if m.metric.glob_name}
    assert globs == {"*": "trainer/global_step"}
    assert all("images" in row for row in rows)


def test_the_summary_has_the_best_beside_the_last(run: Path, evaluations: Rows) -> None:
    summary = last_values(run, "summary")
    cnr = [float(str(row["grounding/macro_cnr"])) for row in evaluations]
    distance = [float(str(row["fidelity/fd_domain"])) for row in evaluations]
    assert summary["grounding/macro_cnr"] == cnr[-1]
    assert summary["best_cnr"] == summary["best/grounding/macro_cnr"] == max(cnr)
    assert summary["best_distance"] == summary["best/fidelity/fd_domain"] == min(distance)
    assert summary["cnr_at_best_distance"] == cnr[distance.index(min(distance))]
    assert summary["images_at_best_distance"] == 16 * distance.index(min(distance))
    assert not [key for key in summary if key.startswith("best/grounding/Edema") or key.startswith("best/fidelity/n")]


def test_controls_stand_beside_the_figures(run: Path, evaluations: Rows) -> None:
    controls = json.loads((run / "controls.json").read_text())
    for row in evaluations:
        assert row["grounding/prior/macro_cnr"] == pytest.approx(controls["grounding"]["prior"]["macro_cnr"])
        assert row["fidelity/real_vs_real/fd_domain"] == pytest.approx(
            controls["fidelity"]["fd_domain"]["real_vs_real"]
        )
        assert not [key for key in row if key.startswith("grounding/prior/Edema")]


def test_learning_rates_of_each_part_in_the_rows_of_the_losses(run: Path) -> None:
    rows = [row for row in history(run) if "train/loss" in row]
    assert len(rows) == 4
    assert [row["learning_rate/unet"] for row in rows] == pytest.approx([1e-3] * 4)
    assert [row["learning_rate/text_encoder"] for row in rows] == pytest.approx([2e-4] * 4)


def test_group_tags_job_and_what_decides_numbers(run: Path) -> None:
    first, last = wandb_records(run, "run")[0].run, wandb_records(run, "run")[-1].run
    assert (first.run_group, first.job_type, first.display_name) == ("t", "fit", f"t/{run.name}")
    assert list(last.tags) == ["learnable", "impression"]
    config = last_values(run, "config")
    wanted = {"freeze_text_encoder": False, "encoder": "learnable", "prompt": "impression", "seed": 5}
    assert {name: config[name] for name in wanted} == wanted
    versions = config["versions"]
    assert isinstance(versions, dict)
    for name, package in (("torch", "torch"), ("lightning", "lightning"), ("open_clip", "open_clip_torch")):
        assert versions[name] == version(package)


def test_overlays_carry_the_boxes_and_masks_of_their_finding(run: Path, evaluations: Rows) -> None:
    entries = json.loads((run / "media" / "attention" / "000000016.json").read_text())
    row = evaluations[1]
    assert row["grounding/attention.captions"] == [f"{entry['word']}: {entry['phrase']}" for entry in entries]
    boxes, masks = row["grounding/attention.all_boxes"], row["grounding/attention.all_masks"]
    assert isinstance(boxes, list)
    assert isinstance(masks, list)
    numbers = {name: i for i, name in enumerate(sorted({entry["class"] for entry in entries}), start=1)}
    for entry, box, mask in zip(entries, boxes, masks, strict=True):
        found = json.loads((media(run) / box["finding"]["path"]).read_text())
        corners = [[p["minX"], p["minY"], p["maxX"] - p["minX"], p["maxY"] - p["minY"]] for p in
                   (one["position"] for one in found["box_data"])]  # fmt: skip
        assert corners == pytest.approx(np.asarray(entry["boxes"]))
        assert {one["class_id"] for one in found["box_data"]} == {numbers[entry["class"]]}
        drawn = np.asarray(Image.open(media(run) / mask["finding"]["path"]))
        truth = np.asarray(Image.open(run / "media" / "attention" / entry["mask"])) > 0
        assert np.array_equal(drawn == numbers[entry["class"]], truth)
        assert 0 < truth.mean() < 1


def test_the_table_of_phrases_is_that_of_the_run_folder(run: Path, evaluations: Rows) -> None:
    for row, images in zip(evaluations, (0, 16, 32), strict=True):
        shown, written = table(run, row, "grounding/phrases"), read_table(run / "grounding" / f"{images:09d}.csv")
        assert sorted((str(one["class"]), str(one["phrase"])) for one in shown) == sorted(
            (one["class"], one["phrase"]) for one in written
        )
        assert sum(bool(one["hit"]) for one in shown) == sum(float(one["top1"]) > 0 for one in written)
        assert sorted(float(str(one["CNR"])) for one in shown) == pytest.approx(
            sorted(float(one["cnr"]) for one in written), rel=1e-5
        )


def test_the_trade_off_is_a_chart_of_the_path_so_far(run: Path, evaluations: Rows) -> None:
    for i, row in enumerate(evaluations, start=1):
        path = table(run, row, "tradeoff_table")
        assert [one["images"] for one in path] == [0, 16, 32][:i]
        assert {(one["run"], one["encoder"], one["prompt"]) for one in path} == {
            (f"t/{run.name}", "learnable", "impression")
        }
        assert [one["cnr"] for one in path] == [one["grounding/macro_cnr"] for one in evaluations[:i]]
        assert [one["distance"] for one in path] == [one["fidelity/fd_domain"] for one in evaluations[:i]]
    panel = last_values(run, "config")["_wandb.visualize.tradeoff"]
    assert isinstance(panel, dict)
    assert panel["panel_config"]["panelDefId"] == "wandb/scatter/v0"
    assert panel["panel_config"]["fieldSettings"] == {"x": "distance", "y": "cnr"}


@pytest.mark.slow  # the command in processes of its own
def test_what_the_environment_says_wins(
    tmp_path: Path, parts: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `wandb agent` starts its children, in a process of its own, with a chart of the user's own."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(
        "wandb_version: 1\nmodel.learning_rate:\n  value: 0.25\nseed_everything:\n  value: 9\n", encoding="utf-8"
    )
    said = {
        "WANDB_MODE": "offline",
        "WANDB_NAME": "mine",
        "WANDB_PROJECT": "project",
        "WANDB_ENTITY": "lab",
        "WANDB_RUN_GROUP": "sweep-s-1",
        "WANDB_JOB_TYPE": "sweep",
        "WANDB_TAGS": "a,b",
        "WANDB_NOTES": "why",
        "WANDB_RUN_ID": "abc12345",
        "WANDB_SWEEP_ID": "sw123",
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "MEDDIFF_WANDB_CHART": "lab/tradeoff",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    config = tracked_config(tmp_path / "first", *parts)
    done = child("fit", "-c", str(config), "--seed_everything", "9", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "first")
    found = wandb_records(run, "run")[-1].run
    assert (found.display_name, found.project, found.entity, found.run_group) == ("mine", "project", "lab", "sweep-s-1")
    assert (found.job_type, list(found.tags), found.notes, found.run_id) == ("sweep", ["a", "b"], "why", "abc12345")
    assert found.sweep_id == "sw123"
    assert (run / "wandb_id.txt").read_text().strip() == "abc12345"
    told = last_values(run, "config")
    assert (told["model.learning_rate"], told["seed_everything"], told["sweep"]) == (0.25, 9, "sw123")
    assert isinstance(told["model"], dict), "the sweep's flat names and the configuration do not meet"
    panel = told["_wandb.visualize.tradeoff"]
    assert isinstance(panel, dict)
    assert panel["panel_config"]["panelDefId"] == "lab/tradeoff"
    names = ("run", "encoder", "prompt", "images", "distance", "cnr")
    assert panel["panel_config"]["fieldSettings"] == {name: name for name in names}


def test_a_sweep_that_no_server_knows_is_told_by_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    assert "sweep" not in run_facts({})
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep-freezing-1")
    assert run_facts({})["sweep"] == "sweep-freezing-1"
    monkeypatch.setenv("WANDB_RUN_GROUP", "a group of one's own")
    assert "sweep" not in run_facts({})


def test_checkpoints_go_along_where_they_are_wanted(
    tmp_path: Path, run: Path, parts: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    sent = tracked_fit(tmp_path, *parts, "--checkpoint.wandb_artifacts", "true")
    found = [one.artifact for one in wandb_records(sent, "artifact") if one.artifact.type == "model"]
    rows = {int(row["step"]): row for row in read_table(sent / "tradeoff.csv")}
    best = {
        "best_cnr": max((2, 4), key=lambda step: float(rows[step]["grounding/macro_cnr"])),
        "best_distance": min((2, 4), key=lambda step: float(rows[step]["fidelity/fd_domain"])),
        "last": 4,
    }
    told = {alias: json.loads(one.metadata)["step"] for one in found for alias in one.aliases if alias != "latest"}
    assert told == best
    assert [json.loads(one.metadata)["step"] for one in found][-1] == 4, "W&B calls the newest one latest"
    for one in found:
        step, (entry,) = json.loads(one.metadata)["step"], one.manifest.contents
        assert Path(entry.local_path) == sent / "checkpoints" / f"step-{step:08d}.ckpt", "read where it lies"
        assert json.loads(one.metadata)["images"] == 8 * step
    assert not home.exists(), "nothing waits outside the run folder"
    # the control: nobody asked for it
    assert not [one for one in wandb_records(run, "artifact") if one.artifact.type == "model"]


def test_every_name_that_is_logged_is_explained(run: Path) -> None:
    keys = {key for row in read_metrics(run / "metrics.jsonl") for key in row}
    keys |= {key.split(".")[0] for row in history(run) for key in row if not key.startswith("_")}
    own = {"step", "time", "epoch", "trainer/global_step"}  # of Lightning and of the file
    shown = {"grounding/attention", "grounding/phrases", "fidelity/samples", "tradeoff_table"}
    maps = ("attention_phrases", "attention_layers", "end_token_phrases")
    shown |= {f"saliency/{sheet}_by_timestep" for sheet in maps}
    assert set(unexplained(sorted(keys))) == own | shown
