"""Prototypes during training: the losses are the same with and without, pictures for the report and for W&B."""

from pathlib import Path

import lightning as L
import pytest
import torch
import wandb

from callbacks import PrototypesCallback
from callbacks.tracking import JsonlLogger, RunWandbLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule, PatronusModule
from meddiff.common.errors import UserError
from meddiff.models.prototype_options import PrototypeOptions
from meddiff.runs.folder import Run
from meddiff.runs.metrics_file import read_metrics
from tests.builders.patronus import PLAIN_UNET, PROTOTYPES
from tests.builders.tiny import make_shards, model_config, quiet_trainer
from tests.builders.wandb_records import history

BATCH, STEPS = 8, 4
SMALL = {"samples": 30, "shown": 2, "views": 2, "steps": 2, "reconstructed": 3, "gallery": 2, "natural": 1}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("watched") / "s", vae_folder, n=80, val=30, grounding=12, fidelity=0)


def fit(folder: Path, shards: Path, vae: Path, callbacks: list[L.Callback]) -> dict[str, torch.Tensor]:
    L.seed_everything(7, verbose=False)
    unet = {**PLAIN_UNET, "dropout": 0.1}  # which makes the global generator matter
    module = PatronusModule(
        unet, None, str(vae), prototypes=PrototypeOptions(**PROTOTYPES), ema_decay=0.9, learning_rate=1e-3
    )  # type: ignore[arg-type]
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=[JsonlLogger(folder), RunWandbLogger(folder, "tiny")],
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        val_check_interval=100,
        check_val_every_n_epoch=None,
    )
    trainer.fit(module, LatentShardsDataModule(str(shards), batch_size=BATCH))
    wandb.finish()
    return module.state_dict()


def losses(folder: Path) -> list[float]:
    return [float(row["train/loss"]) for row in read_metrics(folder / "metrics.jsonl") if "train/loss" in row]


def test_training_does_not_notice_and_the_report_finds_the_pictures(
    tmp_path: Path, shards: Path, vae_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    plain = fit(tmp_path / "plain", shards, vae_folder, [])
    watched = fit(tmp_path / "watched", shards, vae_folder, [PrototypesCallback(2 * BATCH, **SMALL)])
    assert len(losses(tmp_path / "plain")) == STEPS
    assert losses(tmp_path / "watched") == losses(tmp_path / "plain")
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    folder = tmp_path / "watched"
    logged = [row for row in read_metrics(folder / "metrics.jsonl") if "prototypes/variation_mse" in row]
    assert [row["images"] for row in logged] == [0, 2 * BATCH, 4 * BATCH]
    wanted = {"prototypes/dead_share", "prototypes/named_share_shuffled", "grounding/prototype_cnr_prior"}
    assert all(wanted <= row.keys() for row in logged)
    assert not any(name.startswith("prototypes/prototype_") for row in logged for name in row)
    views = Run(folder).prototype_views
    assert list(views) == [0, 2 * BATCH, 4 * BATCH]
    assert all(len(some) == 2 for some in views.values())
    sent = [row for row in history(folder) if "prototypes/variation_mse" in row]
    assert len(sent) == 3
    named = {name.partition(".")[0] for name in sent[0]}
    assert {"prototypes/reconstructions", "prototypes/raised"} <= named


def test_a_model_without_prototypes_is_refused(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    module = LatentDiffusionModule(**model_config(vae_folder))  # type: ignore[arg-type]
    trainer = quiet_trainer(tmp_path, 1, [PrototypesCallback(BATCH, **SMALL)])
    with pytest.raises(UserError, match="has no prototypes"):
        trainer.fit(module, LatentShardsDataModule(str(shards), batch_size=BATCH))
