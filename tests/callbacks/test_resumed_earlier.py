"""A run that was begun before a measurement was renamed goes on: one column, and what watched the old name watches on."""

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping

from callbacks import FidelityCallback, RunCheckpoint, TradeoffCallback
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.models.sampling import SamplingOptions
from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import read_table
from tests.builders.drawn_parts import make_classifier
from tests.builders.earlier_folders import age
from tests.builders.tiny import make_shards, model_config

BATCH = 8


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("earlier") / "s", vae_folder, n=44, val=4, grounding=2, fidelity=8)


def fit(folder: Path, cohort: Path, vae: Path, steps: int, monitor: str, ckpt: Path | None = None) -> EarlyStopping:
    L.seed_everything(3, verbose=False)
    fidelity = FidelityCallback(
        2 * BATCH,
        samples=4,
        weights={"domain": str(make_classifier(folder.parent / "classifier"))},
        sampling=SamplingOptions("ddim", 1, 1.0),
        controls=["real_vs_real"],
        shown=1,
    )
    checkpoint = RunCheckpoint()
    checkpoint.dirpath = str(folder / "checkpoints")
    watching = EarlyStopping(monitor, patience=50, check_on_train_epoch_end=False)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=JsonlLogger(folder),
        callbacks=[fidelity, TradeoffCallback(), watching, checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    module = LatentDiffusionModule(**model_config(vae))
    trainer.fit(module, LatentShardsDataModule(str(cohort), batch_size=BATCH), ckpt_path=ckpt, weights_only=True)
    return watching


def test_it_goes_on_under_one_name(tmp_path: Path, cohort: Path, vae_folder: Path) -> None:
    run = tmp_path / "name" / "time"
    fit(run, cohort, vae_folder, 2, "fidelity/fd_domain")
    age(run)
    assert "fid_domain" in (run / "tradeoff.csv").read_text()
    first = [row["fidelity/fd_domain"] for row in read_table(run / "tradeoff.csv")]
    # as its own config.yaml says it: the name of that time
    watching = fit(run, cohort, vae_folder, 4, "fidelity/fid_domain", run / "checkpoints" / "last.ckpt")
    text = (run / "tradeoff.csv").read_text()
    assert "fid_domain" not in text
    assert text.count("fidelity/fd_domain") == 1
    rows = read_table(run / "tradeoff.csv")
    assert [int(row["images"]) for row in rows] == [0, 16, 32]
    assert [row["fidelity/fd_domain"] for row in rows[:2]] == first
    assert all(float(row["fidelity/fd_domain"]) > 0 for row in rows)
    assert float(watching.best_score) == pytest.approx(
        min(float(row["fidelity/fd_domain"]) for row in rows[1:]), rel=1e-5
    )
    logged = [row["fidelity/fd_domain"] for row in read_metrics(run / "metrics.jsonl") if "fidelity/fd_domain" in row]
    assert len(logged) == 3
