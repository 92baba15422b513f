"""What leaves the machine: every record of a W&B run over a credentialed cohort, and of one over a public one."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from PIL import Image

from callbacks import GroundingCallback, JsonlLogger
from callbacks.gate import NumbersOnly, cohorts_of, gated, numbers_within
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.cli.main import dispatch
from tests.builders.command import write_fit
from tests.builders.drawn_parts import make_classifier
from tests.builders.secret_cohort import Cohort, make_cohort
from tests.builders.tiny import model_config, quiet_trainer
from tests.builders.wandb_records import everything, offline_run, wandb_records

#: The type under which W&B keeps several pictures of one name.
SHOWN = "images/separated"
PNG = b"\x89PNG"
PRIVATE = [("ms-cxr", "credentialed")]


@pytest.fixture(scope="module")
def credentialed(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("credentialed"), vae_folder, "credentialed")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier") / "one")


def train(folder: Path, cohort: Cohort, vae: Path, classifier: Path, *flags: str) -> Path:
    """A fit of two steps with every evaluation that shows pictures, asked to send its checkpoints; the run folder."""
    way = {"sampler": "dpm++", "steps": 1, "guidance_scale": 1.0}
    config = write_fit(
        folder / "fit.yaml",
        cohort.shards,
        vae,
        {"max_steps": 2},
        checkpoint={"wandb_artifacts": True},
        grounding={"every_n_images": 16, "timesteps": 1},
        gallery={"every_n_images": 16, "timesteps": 1, "shown": 4},
        fidelity={"every_n_images": 16, "samples": 4, "weights": {"domain": str(classifier)}, "controls": [],
                  "sampling": way},
        tradeoff={"report": False},
    )  # fmt: skip
    assert dispatch(["fit", "-c", str(config), *flags]) == 0
    (run,) = (folder / "runs" / "t").iterdir()
    return run


def found_in(run: Path, cohort: Cohort) -> list[str]:
    """Which secrets, and whether pictures or tables, are anywhere in what W&B holds of a run."""
    _, records, files = everything(run)
    data = [records, *files.values(), "\n".join(files).encode()]
    names = [*cohort.secrets, SHOWN, "image-file", "table-file", "boxes2D", "Vega2"]
    return [name for name in names if any(name.encode() in one for one in data)] + [
        name for name, one in files.items() if PNG in one
    ]


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.usefixtures("_offline")
def test_every_record_of_a_run_over_a_credentialed_cohort(
    tmp_path: Path, credentialed: Cohort, vae_folder: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path, credentialed, vae_folder, classifier)
    told = [line for line in capsys.readouterr().out.splitlines() if "credentialed" in line]
    assert told.pop() == (
        "checkpoint.wandb_artifacts: checkpoints stay in the run folder, a cohort is credentialed and "
        "--allow_media_upload is not true"
    )
    assert told == [
        f"folder is credentialed: pictures, captions and keys stay in {run / 'media'}; only numbers go to W&B; "
        "--allow_media_upload true changes that"
    ]
    assert found_in(run, credentialed) == []
    kinds, records, files = everything(run)
    assert set(kinds) <= {
        "header",
        "run",
        "config",
        "history",
        "summary",
        "stats",
        "telemetry",
        "exit",
        "metric",
        "final",
    }
    assert {"run", "history", "summary", "config"} <= set(kinds)
    assert all(name.startswith(("run-", "logs/debug")) for name in files), "no packages, code, metadata or media"
    for path in (tmp_path, vae_folder, classifier):  # the command line, the configuration, the machine
        assert str(path).encode() not in records
    for name in (
        b"train/loss",
        b"grounding/cnr",
        b"fidelity/fd_domain",
        b"batch_size",
        b"learning_rate/unet",
        b"best_cnr",
    ):
        assert name in records, name
    # the run folder has them: the report shows them
    entries = json.loads(next((run / "media" / "attention").glob("0*.json")).read_text())
    assert any(secret in json.dumps(entries) for secret in credentialed.secrets)
    assert list((run / "media" / "samples").glob("*.png"))


@pytest.mark.usefixtures("_offline")
def test_what_is_allowed_goes_out(
    tmp_path: Path, credentialed: Cohort, vae_folder: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control of the test above: the same search finds pictures, captions and phrases."""
    run = train(tmp_path, credentialed, vae_folder, classifier, "--allow_media_upload", "true")
    found = found_in(run, credentialed)
    assert SHOWN in found
    assert "moderate edema seen by Dr fidelity4" in found
    assert "edema as of grounding visit 0" in found
    assert sum(name.endswith(".png") for name in found) > 4
    assert "table-file" in found, "the phrases"
    kept = [path.name for path in offline_run(run).rglob("*.json")]
    assert any("boxes2D" in name for name in kept)
    sent = [one.artifact for one in wandb_records(run, "artifact") if one.artifact.type == "model"]
    assert ["last" in one.aliases for one in sent] == [True]
    assert "go to W&B because --allow_media_upload is true" in capsys.readouterr().out


@pytest.mark.usefixtures("_offline")
def test_a_public_cohort_is_shown(
    tmp_path: Path, vae_folder: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = make_cohort(tmp_path / "cohort", vae_folder, "public")
    run = train(tmp_path, cohort, vae_folder, classifier)
    assert SHOWN in found_in(run, cohort)
    assert "credentialed" not in capsys.readouterr().out


def test_one_credentialed_split_counts(credentialed: Cohort, shards: Path, tmp_path: Path) -> None:
    alone = LatentShardsDataModule(str(shards))
    assert cohorts_of(alone) == [("phantom", "public")]
    mixed = LatentShardsDataModule(str(shards), splits_from={"grounding": str(credentialed.shards)})
    assert cohorts_of(mixed) == [("phantom", "public"), ("folder", "credentialed")]
    (logger,) = gated([CSVLogger(tmp_path)], cohorts_of(mixed), tmp_path)
    assert isinstance(logger, NumbersOnly)
    assert cohorts_of(SimpleNamespace())[0][1] == "credentialed", "data that do not say what they are"


def test_any_logger_takes_numbers_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that the user adds: Lightning's writer of CSV, with hyperparameters full of paths and prompts."""
    jsonl = JsonlLogger(tmp_path)
    loggers = gated([CSVLogger(tmp_path, "csv"), jsonl], PRIVATE, tmp_path)
    assert loggers[1] is jsonl
    csv = loggers[0]
    csv.log_hyperparams({"lr": 0.1, "vae": "/data/p10/vae", "prompts": ["edema of Mr X"], "data": {"batch": 8}})
    csv.log_metrics({"train/loss": torch.tensor(0.5), "caption": "edema of Mr X", "image": np.zeros((4, 4))}, 1)
    assert not hasattr(csv, "log_image"), "it has no such thing"
    csv.save()
    csv.finalize("success")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"train/loss" in written
    assert b"0.5" in written
    assert b"batch: 8" in written
    for word in (b"Mr X", b"p10", b"caption", b"image"):
        assert word not in written
    assert "only numbers go to CSVLogger" in capsys.readouterr().out


@pytest.mark.usefixtures("_offline")
def test_own_code_that_logs_past_lightning_meets_the_gate(tmp_path: Path) -> None:
    """Lightning's own W&B logger as a config may name it, with console, code and notes; then every way to send a thing."""
    import wandb

    secret, picture = "edema of Mr X", np.full((8, 8), 200, np.uint8)
    (tmp_path / "secret.txt").write_text(secret)
    settings = wandb.Settings(console="wrap", silent=True)
    inner = WandbLogger(
        "n", str(tmp_path), project="p", offline=True, settings=settings, config={"prompt": secret, "k": 3}
    )
    (logger,) = gated([inner], PRIVATE, tmp_path)
    assert isinstance(logger, NumbersOnly)
    run = logger.experiment
    image = wandb.Image(Image.fromarray(picture), caption=secret)
    logger.log_image("a", [picture], caption=[secret])
    logger.log_table("b", columns=["t"], data=[[secret]])
    logger.log_hyperparams(argparse.Namespace(prompt=secret, steps=7))
    for log in (run.log, wandb.log, logger.log_metrics):
        log({"c": image, "d": secret, "loss": 0.25})
    run.config.update({"prompt": secret})
    run.summary["best"] = secret
    run.notes = secret
    run.log_artifact(str(tmp_path / "secret.txt"), name="x")
    run.save(str(tmp_path / "secret.txt"), base_path=str(tmp_path))
    wandb.save(str(tmp_path / "secret.txt"), base_path=str(tmp_path))
    wandb.config.update({"prompt": secret})
    wandb.summary["best"] = secret
    run.alert(title=secret, text=secret)
    logger.watch(torch.nn.Linear(2, 2))
    print(secret)
    wandb.finish()
    _, records, files = everything(tmp_path)
    for one in (records, *files.values()):
        assert secret.encode() not in one
        assert PNG not in one
    assert b"0.25" in records
    assert b"steps" in records


@pytest.mark.usefixtures("_offline")
def test_a_trainer_built_by_hand_is_behind_the_gate(tmp_path: Path, credentialed: Cohort, vae_folder: Path) -> None:
    trainer = quiet_trainer(tmp_path, 1, callbacks=[GroundingCallback(8, timesteps=1)], use_distributed_sampler=False)
    logger: Logger = CSVLogger(tmp_path, "csv")
    trainer.loggers = [logger]
    trainer.fit(LatentDiffusionModule(**model_config(vae_folder)), LatentShardsDataModule(str(credentialed.shards), 8))
    assert isinstance(trainer.loggers[0], NumbersOnly)


def test_numbers_within_a_configuration() -> None:
    tree = {
        "a": {"b": [1, 2], "words": ["x"], "mixed": [1, "x"]},
        "flag": True,
        "path": "/x",
        "none": None,
        "c": {"d": "e"},
    }
    assert numbers_within(tree) == {"a": {"b": [1, 2]}, "flag": True}
