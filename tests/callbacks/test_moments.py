"""What was measured before something broke is on record, once; a run that goes on knows its best from before."""

from pathlib import Path

import lightning as L
import pytest

from callbacks import GroundingCallback, TradeoffCallback
from callbacks.evaluation import EvaluationCallback
from callbacks.moments import controls_beside, log_moment
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.runs.folder import Run
from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import read_table, update_controls, write_table
from tests.builders.tiny import model_config, quiet_trainer


class Breaks(EvaluationCallback):
    """An evaluation that comes second and fails."""

    def measure(self, *_: object) -> dict[str, float]:  # type: ignore[override]
        raise RuntimeError("broken")


def test_what_was_measured_before_the_next_evaluation_broke_is_logged_once(
    tmp_path: Path, shards: Path, vae_folder: Path
) -> None:
    callbacks: list[L.Callback] = [GroundingCallback(8, timesteps=1), Breaks(8, "grounding")]
    trainer = quiet_trainer(tmp_path, 1, callbacks=callbacks, use_distributed_sampler=False)
    trainer.loggers = [JsonlLogger(tmp_path)]
    module = LatentDiffusionModule(**model_config(vae_folder))
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(module, LatentShardsDataModule(str(shards), 8))
    assert len([row for row in read_metrics(tmp_path / "metrics.jsonl") if "grounding/cnr" in row]) == 1


def test_a_report_that_cannot_be_written_is_told_and_training_goes_on(
    tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").mkdir()  # whoever the process is, nothing writes a file over a folder
    callbacks: list[L.Callback] = [GroundingCallback(8, timesteps=1), TradeoffCallback()]
    trainer = quiet_trainer(tmp_path, 1, callbacks=callbacks, use_distributed_sampler=False)
    trainer.loggers = [JsonlLogger(tmp_path)]
    trainer.fit(LatentDiffusionModule(**model_config(vae_folder)), LatentShardsDataModule(str(shards), 8))
    assert trainer.global_step == 1
    assert [row["images"] for row in read_table(tmp_path / "tradeoff.csv")] == ["0", "8"]
    said = capsys.readouterr()
    assert "report.html was not written" in said.err + said.out
    assert "`lightning report RUN` makes it later" in said.err + said.out


def test_a_run_that_goes_on_has_its_evaluations_of_before(tmp_path: Path) -> None:
    rows = [{"step": i, "images": 8 * i, "grounding/cnr": 0.9 - 0.1 * i} for i in range(3)]
    write_table(tmp_path / "tradeoff.csv", rows)
    trainer = quiet_trainer(tmp_path, 1)
    trainer.loggers = [JsonlLogger(tmp_path)]
    earlier: list = []
    log_moment(trainer, 16, {"grounding/cnr": 0.1}, [], earlier)  # the row of 16 images is of before the kill
    assert [(images, values["grounding/cnr"]) for images, values in earlier] == [
        (0, pytest.approx(0.9)),
        (8, pytest.approx(0.8)),
        (16, 0.1),
    ]
    log_moment(trainer, 24, {"grounding/cnr": 0.2}, [], earlier)
    assert [images for images, _ in earlier] == [0, 8, 16, 24]


def test_controls_of_the_headline_only(tmp_path: Path) -> None:
    update_controls(
        tmp_path, "grounding", {"prior": {"cnr": 0.4, "miou": 0.2, "Edema/cnr": 0.5}, "random": {"cnr": 0.0}}
    )
    update_controls(tmp_path, "fidelity", {"n": 5, "fd_domain": {"noise": 9.0, "untrained": None}})
    figures = {
        "grounding/cnr": 1.0,
        "grounding/miou": 0.3,
        "grounding/Edema/cnr": 1.0,
        "fidelity/fd_domain": 3.0,
        "fidelity/n": 5.0,
    }
    assert controls_beside(Run(tmp_path), figures) == {
        "grounding/prior/cnr": 0.4,
        "grounding/random/cnr": 0.0,
        "fidelity/noise/fd_domain": 9.0,
    }
