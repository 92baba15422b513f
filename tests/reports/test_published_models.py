"""Published models beside runs in the tables: columns of their own by their own names, pooled with nothing."""

from pathlib import Path

import pytest

from meddiff.reports.paper.build import build_tables
from meddiff.reports.paper.cells import MICRO
from meddiff.reports.paper.pooling import group_models
from meddiff.runs.evaluation_folder import read_evaluation
from meddiff.runs.folder import read_run
from meddiff.runs.tables import write_table
from tests.builders.evaluation_folders import column, make_evaluation
from tests.builders.pipelines import edit_json


def publish(folder: Path, name: str, sha256: str = "a" * 64, shift: float = 0.0) -> Path:
    """The evaluation of a published model, in a folder that is no run's."""
    made = make_evaluation(folder / "made" / name, "base", name=name, images=0, shift=shift)
    out = folder / "evaluation" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    made.rename(out)
    edit_json(out / "evaluation.json", published=True, run=f"hub/{name}", sha256={"unet": sha256})
    return out


def labels(*folders: Path) -> list[str]:
    return [model.label for model in group_models([read_evaluation(folder) for folder in folders])]


def test_a_column_of_its_own_beside_runs(evaluated_runs: dict[str, Path], tmp_path: Path) -> None:
    runs = [evaluated_runs["frozen0"], evaluated_runs["frozen1"], evaluated_runs["learnable0"]]
    places = [publish(tmp_path, "stable-diffusion-2-base"), publish(tmp_path, "RoentGen-v2", "b" * 64, shift=0.5)]
    (table,) = build_tables([*runs, *places], [1])
    assert [head for head in table.columns if not head.startswith("paper")][-4:] == [
        "frozen", "learnable", "stable-diffusion-2-base", "RoentGen-v2",
    ]  # fmt: skip
    one, other = (column(table, name, "CNR")[MICRO].value for name in ("stable-diffusion-2-base", "RoentGen-v2"))
    assert float(str(other)) - float(str(one)) == pytest.approx(0.5, abs=1e-3)
    assert any("RoentGen-v2 as published, not trained here, U-Net sha256 bbbbbbbbbbbb" in note for note in table.notes)
    seven = build_tables([*runs, *places], [7])[0]
    assert "RoentGen-v2" not in " ".join(seven.columns), "table 7 is about how a text encoder was trained here"


def test_models_of_one_name_are_not_seeds_of_each_other(tmp_path: Path) -> None:
    first, second = publish(tmp_path / "a", "model"), publish(tmp_path / "b", "model", "b" * 64)
    assert len(set(labels(first, second))) == 2
    again = publish(tmp_path / "c", "model")
    assert len(set(labels(first, again))) == 2, "the same weights measured twice are two columns, too"
    assert labels(first, first) == ["model"], "and one folder named twice is one"


def test_a_run_before_training_stays_the_base(tmp_path: Path) -> None:
    """Control: what is not published is named as it was."""
    run = tmp_path / "run" / "time"
    make_evaluation(run, "base", images=0)
    assert labels(run, publish(tmp_path, "model")) == ["base", "model"]


def test_a_config_that_lies_two_folders_above_says_nothing_about_it(tmp_path: Path) -> None:
    place = publish(tmp_path, "model")
    (tmp_path / "config.yaml").write_text("name: other\nmodel:\n  init_args:\n    learning_rate: 1\n")
    found = read_evaluation(place)
    assert (found.settings, found.run) == ({}, place.resolve())


def test_its_folder_is_a_point_for_the_report(tmp_path: Path) -> None:
    place = publish(tmp_path, "model")
    write_table(place / "tradeoff.csv", [{"step": 0, "images": 0, "grounding/macro_cnr": 0.3}], ("step", "images"))
    run = read_run(place)
    assert (run.name, run.problems) == ("model", [])
    assert [(one.images, one.values) for one in run.evaluations] == [(0, {"grounding/macro_cnr": 0.3})]
    edit_json(place / "evaluation.json", published=False)
    assert read_run(place).name == "evaluation", "control: of a run's own evaluation the name is not taken"
