"""What throughput is held against: counted operations and the machine's peak; and what it waits for."""

import json
import time
from pathlib import Path

import lightning as L
import pytest
import torch

from callbacks import ThroughputCallback
from callbacks.evaluation import EvaluationCallback
from callbacks.throughput import device_peak, memory_peak, trained_flops, unet_flops
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.drawn_parts import make_model
from tests.builders.tiny import TEXT, UNET, model_config


def test_flops_are_counted_without_computing(vae_folder: Path) -> None:
    model = make_model(vae_folder)
    flops = unet_flops(model)
    parameters = sum(p.numel() for p in model.unet.parameters())
    assert flops > 2 * parameters  # a convolution uses its weights at many places
    assert device_peak("NVIDIA H200") == 989e12
    assert device_peak("Some CPU") is None


def test_a_tower_counts_when_it_trains() -> None:
    frozen, learnable = (LatentDiffusion.build(UNET, TEXT, freeze_text_encoder=frozen) for frozen in (True, False))
    assert trained_flops(frozen) == unet_flops(frozen)
    tower = trained_flops(learnable) - unet_flops(learnable)
    blocks = 2 * 12 * 16**2  # the matrices of two blocks; attention comes on top
    assert tower >= 2 * 77 * blocks


def test_a_peak_must_be_positive() -> None:
    with pytest.raises(UserError, match="peak_tflops is 0"):
        ThroughputCallback(peak_tflops=0.0)


class SlowBatches(LatentShardsDataModule):
    """Each batch takes a while."""

    def train_dataloader(self) -> "Slow":
        return Slow(super().train_dataloader())


class Slow:
    """Batches of a loader, each after a pause."""

    def __init__(self, loader: object) -> None:
        self.loader = loader

    def __iter__(self) -> "Slow":
        self.batches = iter(self.loader)  # type: ignore[call-overload]
        return self

    def __next__(self) -> object:
        time.sleep(0.2)
        return next(self.batches)


class SlowEvaluation(EvaluationCallback):
    """Nothing is measured, for long."""

    def __init__(self) -> None:
        super().__init__(16, "grounding")

    def measure(self, *_: object) -> dict[str, float]:
        time.sleep(0.3)
        return {"nothing": 0.0}


def rows(folder: Path, shards: Path, vae: Path, slow: bool) -> list[dict[str, float]]:
    L.seed_everything(0)
    data = (SlowBatches if slow else LatentShardsDataModule)(str(shards), batch_size=8)
    callbacks: list[L.Callback] = [*([SlowEvaluation()] if slow else []), ThroughputCallback(2, peak_tflops=0.5)]
    trainer = L.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=JsonlLogger(folder),
        callbacks=callbacks,
        log_every_n_steps=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(LatentDiffusionModule(**model_config(vae)), datamodule=data)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "throughput/images_per_s" in line]


def test_waits_and_evaluations_are_told_apart(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    fast, slow = (rows(tmp_path / name, shards, vae_folder, name == "slow") for name in ("fast", "slow"))
    assert len(fast) >= 2
    assert len(slow) >= 2
    flops = trained_flops(LatentDiffusion.build(UNET, TEXT))
    for row in (*fast, *slow):
        assert row["throughput/mfu"] == pytest.approx(3 * flops * row["throughput/images_per_s"] / 0.5e12)
        assert 0.05 < row["throughput/memory_peak_gib"] < 64
    assert fast[-1]["throughput/evaluation_share"] == 0.0
    assert slow[-1]["throughput/evaluation_share"] > 0.0
    # a batch takes 0.2 s more, whatever the machine does beside: the wait is longer than without, and never all of it
    an_image = slow[-1]["throughput/data_wait"] / slow[-1]["throughput/images_per_s"]  # seconds
    assert an_image * 8 >= 0.2
    assert 0.0 < fast[-1]["throughput/data_wait"] < 1.0
    assert 0.0 < slow[-1]["throughput/data_wait"] < 1.0


def test_the_peak_of_memory_is_in_gib() -> None:
    before = memory_peak(torch.device("cpu"))
    block = torch.ones(2**27)  # half a GiB
    assert memory_peak(torch.device("cpu")) >= before
    assert memory_peak(torch.device("cpu")) >= block.nbytes / 2**30
