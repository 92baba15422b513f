"""Loggers of other trackers in ``trainer.logger``: MLflow with a database file, and TensorBoard. Nothing here assumes W&B."""

import json
from pathlib import Path

import pytest
import yaml

from meddiff.runs.tables import read_table
from tests.builders.command import exit_code
from tests.builders.drawn_parts import make_classifier
from tests.builders.tiny import make_shards
from tests.builders.tracked import only_run, tracked_config

NAMES = ("grounding/macro_cnr", "fidelity/fd_domain", "grounding/prior/macro_cnr")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    """A folder with a run that logged to both, and their stores beside it."""
    folder = tmp_path_factory.mktemp("others")
    shards = make_shards(folder / "shards", vae_folder, n=64, val=4, grounding=12, fidelity=8)
    config = tracked_config(folder / "fit", shards, vae_folder, make_classifier(folder / "classifier"))
    loggers = [
        {
            "class_path": "lightning.pytorch.loggers.MLFlowLogger",
            "init_args": {"experiment_name": "trial", "tracking_uri": f"sqlite:///{folder}/mlflow.db"},
        },
        {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": str(folder / "board")}},
    ]
    content = yaml.safe_load(config.read_text())
    content["trainer"]["logger"] = loggers
    config.write_text(yaml.safe_dump(content))
    assert exit_code("fit", "-c", str(config)) == 0
    return folder


def wanted(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each evaluation, as the run folder has it."""
    run = only_run(folder / "fit")
    rows = read_table(run / "tradeoff.csv")
    prior = json.loads((run / "controls.json").read_text())["grounding"]["prior"]["macro_cnr"]
    found = {name: [(int(row["step"]), float(row[name])) for row in rows] for name in NAMES[:2]}
    return {**found, NAMES[2]: [(int(row["step"]), prior) for row in rows]}


def test_mlflow_has_the_curves_and_what_decides_numbers(trained: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{trained}/mlflow.db")
    experiment = client.get_experiment_by_name("trial")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name, points in wanted(trained).items():
        history = sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, name))
        assert [step for step, _ in history] == [0, 2, 4] == [step for step, _ in points]
        assert [value for _, value in history] == pytest.approx([value for _, value in points], rel=1e-5)
    assert client.get_metric_history(run.info.run_id, "learning_rate/unet")
    params = run.data.params
    assert (params["encoder"], params["prompt"], params["freeze_text_encoder"]) == ("frozen", "impression", "True")
    assert "versions/torch" in params


def test_tensorboard_has_the_curves(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (trained / "board" / "lightning_logs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    for name, points in wanted(trained).items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in points]
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-5)


def test_the_run_folder_is_as_ever(trained: Path) -> None:
    run = only_run(trained / "fit")
    assert not (run / "wandb").exists()
    assert list((run / "media" / "attention").glob("*.png"))
    assert "grounding/cnr" in (run / "metrics.jsonl").read_text()
