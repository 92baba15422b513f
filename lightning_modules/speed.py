"""What makes a training faster without changing what is trained: one group of switches, and what each does. Source: own."""

from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_modules.preflight import SPEED
from meddiff.common.errors import UserError
from meddiff.common.ranges import check_ranges
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.pieces import is_sharded
from meddiff.models.text.cache import TextCache

Compile = Literal["off", "regions", "whole"]
Checkpointing = Literal["none", "unet", "all"]

MIB = 2**20
#: Parts of diffusers' U-Nets that repeat; compiled one by one they are most of the computing.
REGIONS = ("ResnetBlock2D", "BasicTransformerBlock")
#: Different shapes of one class of block that are compiled: SDv2's U-Net has 16, times the batch sizes of a run.
RECOMPILE_LIMIT = 128


@dataclass(frozen=True)
class SpeedOptions:
    """All off by default; ``configs/speed/gpu.yaml`` turns on what a GPU should have, ``docs/speed.md`` says what each brings.

    None changes what is computed but in the last bits of a sum, and all can be changed when a run goes on. Mixed precision is
    ``trainer.precision`` (weights, averages and optimiser stay float32 under ``bf16-mixed``), attention is fused wherever
    diffusers runs it, and AdamW is one kernel, without any switch.

    Attributes:
        text_cache: MiB of hidden states of a frozen text tower that are kept, per process; 0 keeps none. Why: captions
            come again every epoch, and a frozen tower says the same of them each time. SDv2: 0.3 MiB a text.
        ema_every: optimiser steps between two updates of the average, with the decay of all of them. Why: each reads and
            writes every weight, which at 16 images a GPU is 2 % of the step.
        channels_last: keep the U-Net's weights and activations with the channels together. Why: tensor cores take them so,
            and cuDNN otherwise turns them round before and after each convolution.
        compile: torch.compile of the U-Net and of a learnable tower, in place (no name in a checkpoint changes): "whole",
            or "regions", block by block, which starts sooner and survives odd networks. Why: it fuses norms, activations
            and sums, which wait for memory. Not under ``lightning evaluate``, and not while attention is recorded.
        activation_checkpointing: compute activations again in the backward pass of the "unet", or of "all" that trains,
            instead of keeping them. Why: a batch of 16 at SDv2's size then fits 24 GB. Costs a third of the speed.
        prefetch: copy batches to the GPU on a stream of their own. Why: the copy of a batch then runs beside the step before.
    """

    text_cache: int = 0
    ema_every: int = 1
    channels_last: bool = False
    compile: Compile = "off"
    activation_checkpointing: Checkpointing = "none"
    prefetch: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"speed.{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        check_ranges("speed", self, **SPEED)

    def set_up(self, model: LatentDiffusion) -> None:
        """Everything but compiling, on a model that was just built: before its average and its optimiser are made."""
        if self.channels_last:
            model.unet.to(memory_format=torch.channels_last)
        if self.activation_checkpointing != "none":
            model.unet.enable_gradient_checkpointing()
            if self.activation_checkpointing == "all" and not model.freeze_text_encoder:
                model.text_encoder.checkpoint_activations()
        if self.text_cache and model.freeze_text_encoder:
            model.text_cache = TextCache(self.text_cache * MIB)

    def start(self, model: LatentDiffusion, strategy: object, device: torch.device) -> None:
        """What a training does before its first step.

        Raises:
            UserError: states cannot be kept of a tower that is shared among processes.
        """
        shared = isinstance(strategy, FSDPStrategy) or is_sharded(model.text_encoder)
        if model.text_cache is not None and shared:
            raise UserError(
                "speed.text_cache: the frozen text tower is shared among processes, which would wait for each other at texts "
                "that not all of them have to encode: set speed.text_cache to 0, or take strategy ddp."
            )
        if self.prefetch and device.type != "cuda":
            rank_zero_warn(f"speed.prefetch does nothing on {device.type}: batches are copied to a GPU only.")
        compile_networks(model, self.compile)


CHOICES: dict[str, tuple[str, ...]] = {
    "compile": ("off", "regions", "whole"),
    "activation_checkpointing": ("none", "unet", "all"),
}


def compile_networks(model: LatentDiffusion, how: Compile) -> None:
    """Have torch compile what trains, when it first runs; nothing is wrapped, so no name changes."""
    if how == "off":
        return
    networks: list[nn.Module] = [model.unet] if model.freeze_text_encoder else [model.unet, model.text_encoder]
    if how == "regions":
        blocks = [part for part in model.unet.modules() if type(part).__name__ in REGIONS]
        networks = [*blocks, *networks[1:]]
    # Blocks of one class share their code: those of equal shapes share what was compiled, too, and eight that differ would
    # use up torch's limit of recompilations.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, RECOMPILE_LIMIT)
    for network in networks:
        network.compile(dynamic=False if how == "regions" else None)


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay out moments as their weights are: a fused step pairs numbers by their place in memory, and says nothing.

    Moments of a checkpoint come as they were saved; under another ``channels_last`` the weights lie otherwise now.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
