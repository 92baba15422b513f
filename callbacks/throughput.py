"""How fast training is: images a second without the evaluations, the share of the machine's peak, and what it waits for."""

import resource
import sys
import time
from contextlib import nullcontext

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from callbacks.evaluation import evaluations, images_seen
from meddiff.common.ranges import COUNT, POSITIVE, check_ranges
from meddiff.models.latent_diffusion import LatentDiffusion, model_of

#: Dense bf16/fp16 peak in FLOP/s by a part of the device's name (vendors' data sheets, without sparsity). Lightning's table
#: holds the sparse figure for the H200, which halves its MFU.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "V100": 125e12}
GIB = 2**30


def device_peak(name: str) -> float | None:
    """FLOP/s of a device by its name; None when it is not in the list."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def unet_flops(model: LatentDiffusion) -> float:
    """FLOPs of one forward pass of the U-Net for one image, counted by torch on the shapes alone (no computing)."""
    return _flops(model, tower=False)


def trained_flops(model: LatentDiffusion) -> float:
    """FLOPs of one forward pass, for one image, of all that trains: the U-Net, and a learnable text tower."""
    return _flops(model, tower=False) + (0.0 if model.freeze_text_encoder else _flops(model, tower=True))


def _flops(model: LatentDiffusion, tower: bool) -> float:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from meddiff.models.footprint import flops

    weight = next(model.unet.parameters())
    length = model.text_encoder.tokenizer.max_length
    compiled = any(part._compiled_call_impl is not None for part in model.modules())
    network: nn.Module = model.text_encoder if tower else model.unet
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()

    def once() -> None:
        if tower:
            network(torch.zeros(1, length, device=weight.device, dtype=torch.long))
        else:
            noisy = torch.empty(1, *model.latent_shape, device=weight.device, dtype=weight.dtype)
            network(noisy, torch.zeros(1, device=weight.device), **model.blank(1).arguments())

    with eager, FakeTensorMode(allow_non_fake_inputs=True):
        return flops(once)


def memory_peak(device: torch.device) -> float:
    """GiB at the peak: what torch has allocated on a GPU, or what this process has held in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held * (1 if sys.platform == "darwin" else 1024) / GIB


class ThroughputCallback(Callback):
    """Logs how fast training is, every so many steps.

    ======================================  ==========================================================================
    ``throughput/images_per_s``             of all ranks, evaluations and validation left out
    ``throughput/mfu``                      FLOPs of all that trains, three forward passes an image, as a share of the
                                            peak; where that is known. A frozen tower and averages do not count
    ``throughput/data_wait``                share of the training time in which rank 0 waits for a batch
    ``throughput/evaluation_share``         share of the time since the start that went into evaluations and validation
    ``throughput/memory_peak_gib``          GiB at rank 0's peak since the start: allocated on the GPU; on a CPU what the
                                            process has held
    ======================================  ==========================================================================

    Source: own (Chowdhery et al. 2022 for MFU).

    Args:
        every_n_steps: optimiser steps between two rows.
        peak_tflops: TFLOP/s of one device that MFU is a share of; null takes the dense half-precision figure of the vendor
            (989 for an H100 or H200), and leaves MFU out where there is none. An H200 multiplies matrices at 790.
    """

    def __init__(self, every_n_steps: int = 50, peak_tflops: float | None = None) -> None:
        super().__init__()
        self.every_n_steps, self.peak_tflops = every_n_steps, peak_tflops
        check_ranges("ThroughputCallback", self, every_n_steps=COUNT, peak_tflops=POSITIVE)
        self._flops: float | None = None
        self._window: tuple[float, int, float, float] | None = None  # seconds, images, evaluated, waited at its start
        self._begun = self._asked = 0.0
        self._paused = self._waited = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = time.monotonic()
        loop = trainer.fit_loop.epoch_loop
        if "_on_before_fetch" in vars(loop):
            return
        before, after = loop._on_before_fetch, loop._on_after_fetch

        def on_before_fetch() -> None:  # Lightning has no hook there, only its profiler's
            self._asked = time.monotonic()
            before()

        def on_after_fetch() -> None:
            self._waited += time.monotonic() - self._asked
            after()

        vars(loop).update(_on_before_fetch=on_before_fetch, _on_after_fetch=on_after_fetch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if self._window is None:
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        self._window = (time.monotonic(), images_seen(trainer), self._evaluated(trainer), self._waited)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused += time.monotonic() - self._validation

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if self._window is None or trainer.global_step % self.every_n_steps:
            return
        start, images, evaluated, waited = self._window
        done = images_seen(trainer) - images
        if not done:
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # once in every_n_steps: kernels still queued are not finished work
        now, spent = time.monotonic(), self._evaluated(trainer)
        seconds = max(now - start - (spent - evaluated), 1e-9)
        values = {
            "throughput/images_per_s": done / seconds,
            "throughput/data_wait": (self._waited - waited) / seconds,
            "throughput/evaluation_share": spent / max(now - self._begun, 1e-9),
            "throughput/memory_peak_gib": memory_peak(device),
        }
        peak = self._peak(device)
        if peak is not None:
            if self._flops is None:
                self._flops = trained_flops(model_of(pl_module))
            values["throughput/mfu"] = 3 * self._flops * done / seconds / (peak * trainer.world_size)
        pl_module.log_dict(values, rank_zero_only=True, batch_size=1)
        self._begin(trainer)

    def _peak(self, device: torch.device) -> float | None:
        """FLOP/s of one device: what the user says, else what is known of it."""
        if self.peak_tflops is not None:
            return self.peak_tflops * 1e12
        return device_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None

    def _evaluated(self, trainer: Trainer) -> float:
        """Seconds spent in evaluations so far."""
        return self._paused + sum(one.seconds for one in evaluations(trainer))
