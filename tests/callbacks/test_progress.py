"""The progress bar counts the images of the whole run, also where a run goes on in the middle of an epoch."""

import re
from pathlib import Path

import lightning as L
import pytest

from callbacks.checkpoint import RunCheckpoint
from callbacks.progress import ImagesProgressBar
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from tests.builders.tiny import model_config

BATCH = 8


class BarAtStart(L.Callback):
    """What the bar says before the first batch; stands behind it in the list of callbacks."""

    def __init__(self, bar: ImagesProgressBar) -> None:
        self.bar = bar

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if not hasattr(self, "total"):
            tqdm = self.bar.train_progress_bar
            self.total, self.initial, self.n = tqdm.total, tqdm.initial, tqdm.n


def fit(folder: Path, shards: Path, vae: Path, steps: int, ckpt: Path | None = None) -> BarAtStart:
    bar = ImagesProgressBar(refresh_seconds=0.0)
    seen = BarAtStart(bar)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[bar, seen, RunCheckpoint(every_n_images=2 * BATCH)],
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        val_check_interval=100,
        check_val_every_n_epoch=None,
    )
    data = LatentShardsDataModule(str(shards), batch_size=BATCH)
    trainer.fit(LatentDiffusionModule(**model_config(vae)), data, ckpt_path=ckpt, weights_only=True)
    return seen


def test_a_run_resumed_in_mid_epoch_shows_its_total_and_starts_its_rate_there(
    tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = fit(tmp_path, shards, vae_folder, 2)
    assert (first.total, first.initial, first.n) == (16, 0, 0)
    checkpoint = max((tmp_path / "checkpoints").glob("step-*.ckpt"))
    capsys.readouterr()
    second = fit(tmp_path, shards, vae_folder, 4, checkpoint)
    # The rate is what was done after `initial`, so it must be the 16 images of the run before.
    assert (second.total, second.initial, second.n) == (32, 16, 16)
    counts = re.findall(r"(\d+)/(\d+) \[", capsys.readouterr().out)
    assert counts[-1] == ("32", "32")
