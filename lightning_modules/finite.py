"""Watches losses and gradients of a training without making it wait. Source: own; the least loss scale is fairseq's."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.weights.fitting import first_three

#: A loss scale that has been halved thirty times: no step has been finite for long.
LEAST_SCALE = 1e-4


class Scaler(Protocol):
    """What is asked of a ``torch.amp.GradScaler``."""

    def scale(self, outputs: Tensor) -> Tensor: ...


@dataclass
class Report:
    """Numbers of one optimiser step on their way to the host.

    Attributes:
        step: optimiser steps taken before it.
        keys: of each micro-batch of this process.
        values: (M + 3,) float32: M losses, the largest gradient, the scale of the loss, and 1 where any process has found
            something that is not finite.
        ready: recorded on the device when ``values`` are there; None when they already are.
    """

    step: int
    keys: list[list[str]]
    values: Tensor
    ready: torch.cuda.Event | None


@dataclass
class FiniteWatch:
    """Stops a training at the first loss or gradient that is not finite, before it reaches the weights.

    On a CPU, and where the optimiser is no fused one, the check comes before the step. On a GPU reading a number makes the
    host wait and the device idle; there the step itself is left out on the device (a fused optimiser takes ``found_inf``),
    the number is copied beside the computing, and the training stops one step later, or before anything is saved: the
    weights are those of before in any case. Under fp16 gradients overflow as a matter of course, and the scaler leaves
    those steps out and lowers its scale: only the loss counts, and a scale that has become nothing.

    Attributes:
        defer: look at a step when the next one is taken; None does so on a GPU.
    """

    defer: bool | None = None

    losses: list[Tensor] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)
    pending: Report | None = None
    problem: str | None = None

    def add_loss(self, loss: Tensor, keys: list[str]) -> None:
        """Remember the loss () of a micro-batch until the step."""
        self.losses.append(loss.detach().float())
        self.keys.append(list(keys))

    def before_step(self, optimizer: torch.optim.Optimizer, step: int, scaler: Scaler | None) -> None:
        """Check losses and gradients; called by all processes together.

        Raises:
            UserError: not finite at this step, or (on a GPU) at the one before.
        """
        self.settle()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        device = parameters[0].device
        one = torch.ones((), device=device)
        # the largest and not the norm: squares of finite numbers overflow
        largest = one if scaler is not None else largest_of([p.grad for p in parameters if p.grad is not None], device)
        scale = one if scaler is None else scaler.scale(one)
        values = torch.stack([*self.losses, largest, scale])
        bad = (~values.isfinite().all() | (scale < LEAST_SCALE)).float()
        any_process(bad)
        report = Report(step, self.keys, torch.cat([values, bad[None]]), None)
        self.losses, self.keys = [], []
        fused = all(group.get("fused") for group in optimizer.param_groups)
        self.pending = report
        on_gpu = device.type == "cuda"
        if not (on_gpu if self.defer is None else self.defer) or not (fused or scaler is not None):
            self.settle()
            return
        if scaler is None:
            optimizer.found_inf = bad  # type: ignore[attr-defined]  # as GradScaler sets it
        if on_gpu:
            host = torch.empty(report.values.shape, pin_memory=True)
            host.copy_(report.values, non_blocking=True)
            report.values, report.ready = host, torch.cuda.Event()
            report.ready.record()

    def settle(self) -> None:
        """Wait for what is on its way; called by all processes together.

        Raises:
            UserError: it was not finite, now or when it was asked before.
        """
        report, self.pending = self.pending, None
        if report is not None:
            if report.ready is not None:
                report.ready.synchronize()
            if report.values[-1] > 0:
                self.problem = sentence(report)
        if self.problem is not None:
            raise UserError(self.problem)


def largest_of(values: list[Tensor], device: torch.device) -> Tensor:
    """The largest magnitude () of this process's parts of some tensors; NaN and infinity pass through."""
    parts = [part for part in map(local, values) if part.numel()]
    if not parts:
        return torch.ones((), device=device)
    if device.type == "cpu":  # torch has no fast kernel of this norm there
        return torch.stack([part.abs().max().float() for part in parts]).max()
    return nn.utils.get_total_norm(parts, math.inf).to(device).float()


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor that is shared among processes; others as they are."""
    own: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return own.detach()


def any_process(flag: Tensor) -> None:
    """Set ``flag`` () everywhere where it is set anywhere."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)


def sentence(report: Report) -> str:
    """What was found, the same on every process: step, and keys of where the loss (or else the gradient) was not finite."""
    *losses, largest, scale, _ = report.values.tolist()
    broken = [keys for keys, loss in zip(report.keys, losses, strict=True) if not math.isfinite(loss)]
    mine = {
        "the loss": [key for keys in broken for key in keys],
        "the gradient": [key for keys in report.keys for key in keys] if not math.isfinite(largest) else [],
        "the loss scale": [key for keys in report.keys for key in keys] if scale < LEAST_SCALE else [],
    }
    everywhere = [mine]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[dict[str, list[str]] | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, mine)
        everywhere = [part for part in parts if part is not None]
    found = {what: [key for part in everywhere for key in part[what]] for what in mine}
    what = next(name for name, keys in found.items() if keys or name == "the loss scale")
    why = "has fallen to nothing (no step was finite)" if what == "the loss scale" else "is not finite"
    return (
        f"Training stopped at step {report.step}: {what} {why} in a batch of {len(found[what])} samples "
        f"({first_three(found[what])}); the weights stay as they were before it: lower the learning rate, or look at these "
        f"samples, and go on from an earlier checkpoint."
    )
