"""Maps by timestep during training: the losses are the same with and without, what is written, what goes to the loggers."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser

from callbacks import DenoisingSaliencyCallback
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.runs.folder import Run
from meddiff.runs.metrics_file import read_metrics
from tests.builders.tiny import UNET, model_config

BATCH, STEPS = 8, 4


def fit(
    folder: Path, shards: Path, vae: Path, callbacks: list[L.Callback], monkeypatch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """Weights after a training in which dropout makes the global generator matter."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    L.seed_everything(7, verbose=False)
    module = LatentDiffusionModule(**{**model_config(vae), "unet": {**UNET, "dropout": 0.1}})
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=JsonlLogger(folder),
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
    return module.state_dict()


def losses(folder: Path) -> list[float]:
    return [float(row["train/loss"]) for row in read_metrics(folder / "metrics.jsonl") if "train/loss" in row]


def test_training_does_not_notice_and_the_report_finds_the_maps(
    tmp_path: Path, shards: Path, vae_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fit(tmp_path / "plain", shards, vae_folder, [], monkeypatch)
    watch = DenoisingSaliencyCallback(2 * BATCH, samples=2, timesteps=2, tools=["attention", "concept"])
    watched = fit(tmp_path / "watched", shards, vae_folder, [watch], monkeypatch)
    assert len(losses(tmp_path / "plain")) == STEPS
    assert losses(tmp_path / "watched") == losses(tmp_path / "plain")
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    folder = tmp_path / "watched"
    assert [file.name for file in sorted((folder / "saliency").iterdir())] == [
        f"{images:09d}.csv" for images in (0, 2 * BATCH, 4 * BATCH)
    ]
    logged = [row for row in read_metrics(folder / "metrics.jsonl") if "saliency/attention/cnr/t581" in row]
    assert [row["images"] for row in logged] == [0, 2 * BATCH, 4 * BATCH]
    entries = Run(folder).saliency_maps
    assert list(entries) == [0, 2 * BATCH, 4 * BATCH]
    # the same phrases each time
    assert len({json.dumps(sorted({str(one["phrase"]) for one in some})) for some in entries.values()}) == 1


def test_its_options_can_be_given_in_a_config() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DenoisingSaliencyCallback, "saliency")
    given = ["--saliency.every_n_images=16", "--saliency.tools=[attention,df_cam]", "--saliency.seed=3"]
    built = DenoisingSaliencyCallback(**parser.parse_args(given).saliency.as_dict())
    assert (built.options.tools, built.options.seed, built.options.samples) == (["attention", "df_cam"], 3, 8)
    with pytest.raises(UserError, match="tools are magic"):
        DenoisingSaliencyCallback(16, tools=["magic"])
