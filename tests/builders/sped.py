"""Short trainings of the tiny model, to be compared with each other."""

from collections.abc import Mapping
from pathlib import Path

import lightning as L
from torch import Tensor

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from tests.builders.tiny import model_config, quiet_trainer

STEPS = 6


def train(
    shards: Path,
    vae: Path,
    folder: Path,
    steps: int = STEPS,
    go_on: Path | None = None,
    callbacks: list[L.Callback] | None = None,
    **overrides: object,
) -> LatentDiffusionModule:
    L.seed_everything(0)
    module = LatentDiffusionModule(**model_config(vae, **overrides))
    trainer = quiet_trainer(folder, steps, callbacks, limit_val_batches=1, use_distributed_sampler=False)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8), ckpt_path=go_on)
    return module


def state_of(module: LatentDiffusionModule) -> dict[str, Tensor]:
    assert module.model.ema is not None
    averages = module.model.ema.state_dict()["shadow"]
    return {**module.state_dict(), **{f"ema.{name}": value for name, value in averages.items()}}


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
