"""What `benchmarks/step.py` measures: our training, the U-Net by itself, and the plain loop, on networks of one size."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import torch
from torch import Tensor

from benchmarks.plain_loop import PlainLoop, clock
from callbacks import ThroughputCallback
from callbacks.progress import ImagesProgressBar
from callbacks.stopping import StopBetweenSteps
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from meddiff.models.footprint import STABLE_DIFFUSION_2
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.weights.sources import Source

TINY_UNET: dict[str, object] = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
#: U-Net and text tower of a size; random weights where they are no folder.
SIZES: dict[str, tuple[Source, Source]] = {
    "quickstart": ("assets/phantom_base", "assets/phantom_base"),
    "sd2": STABLE_DIFFUSION_2,
    "tiny": (TINY_UNET, {"width": 16, "heads": 2, "layers": 2}),
}
RATE, DECAY, PREDICTION = 1e-4, 0.9999, "v_prediction"


@dataclass
class Setting:
    """What all rows of a table share.

    Attributes:
        shards: folder of the training data.
    """

    size: str
    frozen: bool
    batch: int
    device: torch.device
    half: bool
    shards: Path
    speed: Mapping[str, object] = field(default_factory=dict)


class Stopwatch(L.Callback):
    """Seconds of the steps after a warm-up, from the beginning of the first to that of the one after the last."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.begun, self.seconds = warm_up, 0.0, 0.0

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step in (self.warm_up, trainer.max_steps - 1):
            now = clock(trainer.strategy.root_device)
            self.seconds, self.begun = now - self.begun, now if trainer.global_step == self.warm_up else self.begun


class Ours:
    """The suite's own training, again and again on one module."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        unet, tower = SIZES[setting.size]
        self.module = LatentDiffusionModule(
            unet=unet,
            text_encoder=tower,
            freeze_text_encoder=setting.frozen,
            learning_rate=RATE,
            ema_decay=DECAY,
            prediction_type=PREDICTION,
            caption_dropout=0.0,
            init_seed=0,
            speed=dict(setting.speed),
        )

    def run(self, steps: int, callbacks: list[L.Callback] | None = None, warm_up: int = 3) -> float:
        """Seconds a step."""
        watch, on_gpu = Stopwatch(warm_up), self.setting.device.type == "cuda"
        with tempfile.TemporaryDirectory() as folder:
            trainer = L.Trainer(
                accelerator="gpu" if on_gpu else "cpu",
                devices=1,
                precision="bf16-mixed" if self.setting.half else "32-true",
                max_steps=warm_up + steps + 1,
                logger=JsonlLogger(folder),
                callbacks=[StopBetweenSteps(), ThroughputCallback(), ImagesProgressBar(), watch, *(callbacks or [])],
                log_every_n_steps=10,
                limit_val_batches=0,
                use_distributed_sampler=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                default_root_dir=folder,
            )
            workers = 4 if on_gpu else 0
            data = LatentShardsDataModule(str(self.setting.shards), self.setting.batch, num_workers=workers, seed=0)
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the bar
                trainer.fit(self.module, datamodule=data)
        return watch.seconds / steps


class UnetAlone:
    """Forward and backward pass of the network that ``ours`` trains, as it is laid out and compiled."""

    def __init__(self, ours: Ours) -> None:
        self.ours = ours
        self.inputs: tuple[Tensor, ...] | None = None

    def run(self, steps: int) -> float:
        """Seconds a pass."""
        setting, model = self.ours.setting, self.ours.module.model.to(self.ours.setting.device).train()
        if self.inputs is None:
            noisy = torch.randn(setting.batch, *model.latent_shape, device=setting.device)
            timesteps = torch.randint(0, 1000, (setting.batch,), device=setting.device)
            with torch.no_grad():
                states = model.encode_texts(["Small effusion."] * setting.batch).states
            self.inputs = (noisy, torch.randn_like(noisy), timesteps, states)
        noisy, target, timesteps, states = self.inputs
        begun = 0.0
        for step in range(steps + 2):
            if step == 2:
                begun = clock(setting.device)
            with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.half):
                prediction = model.unet(noisy, timesteps, states).sample
            torch.nn.functional.mse_loss(prediction.float(), target).backward()
            model.unet.zero_grad()
        seconds = (clock(setting.device) - begun) / steps
        model.cpu()
        return seconds


def plain_of(setting: Setting) -> PlainLoop:
    """The plain loop on networks of its own."""
    unet, tower = SIZES[setting.size]
    model = LatentDiffusion.build(unet, tower, None, PREDICTION, freeze_text_encoder=setting.frozen)
    return PlainLoop(model.to(setting.device), RATE, DECAY, setting.half)
