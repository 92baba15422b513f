"""How fast training is: images a second without the evaluations, and the share of the machine's peak."""

import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.evaluation import evaluations, images_seen
from meddiff.common.ranges import COUNT, check_ranges
from meddiff.models.latent_diffusion import LatentDiffusion, model_of

#: Dense bf16/fp16 peak in FLOP/s by a part of the device's name (vendors' data sheets, without sparsity).
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "V100": 125e12}


def device_peak(name: str) -> float | None:
    """FLOP/s of a device by its name; None when it is not in the list."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def unet_flops(model: LatentDiffusion) -> float:
    """FLOPs of one forward pass of the U-Net for one image, counted by torch on the shapes alone (no computing)."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    weight = next(model.unet.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        noisy = torch.empty(1, *model.latent_shape, device=weight.device, dtype=weight.dtype)
        length, width = model.text_encoder.tokenizer.max_length, model.text_encoder.width
        text = torch.empty(1, length, width, device=weight.device, dtype=weight.dtype)
        model.unet(noisy, torch.zeros(1, device=weight.device), encoder_hidden_states=text)
    return float(counter.get_total_flops())


class ThroughputCallback(Callback):
    """Logs ``throughput/images_per_s`` (all ranks) and, on a GPU whose peak is known, ``throughput/mfu``.

    Time spent in evaluation callbacks and validation is left out. MFU counts three forward passes of the U-Net an image,
    against the dense half-precision peak; the text tower is not counted. Source: own (Chowdhery et al. 2022 for MFU).

    Args:
        every_n_steps: optimiser steps between two rows.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        check_ranges("ThroughputCallback", self, every_n_steps=COUNT)
        self._flops: float | None = None
        self._start: tuple[float, int, float] | None = None
        self._paused = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if self._start is None:
            self._start = (time.monotonic(), images_seen(trainer), self._evaluated(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused += time.monotonic() - self._validation

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if self._start is None or trainer.global_step % self.every_n_steps:
            return
        before, images, evaluated = self._start
        done = images_seen(trainer) - images
        if not done:
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # once in every_n_steps: kernels still queued are not finished work
        seconds = time.monotonic() - before - (self._evaluated(trainer) - evaluated)
        rate = done / max(seconds, 1e-9)
        values = {"throughput/images_per_s": rate}
        peak = device_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if peak is not None:
            if self._flops is None:
                self._flops = unet_flops(model_of(pl_module))
            values["throughput/mfu"] = 3 * self._flops * rate / (peak * trainer.world_size)
        pl_module.log_dict(values, rank_zero_only=True, batch_size=1)
        self._start = (time.monotonic(), images_seen(trainer), self._evaluated(trainer))

    def _evaluated(self, trainer: Trainer) -> float:
        """Seconds spent in evaluations so far."""
        return self._paused + sum(one.seconds for one in evaluations(trainer))
