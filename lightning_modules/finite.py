"""Watches losses and gradients of a training without making it wait. Source: own; the least loss scale is fairseq's."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.pieces import local
from meddiff.models.weights.fitting import first_three

#: A loss scale that has been halved thirty times: no step has been finite for long.
LEAST_SCALE = 1e-4
#: Steps that may be on their way to the host at once (on a GPU).
READ_EVERY = 10


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

    @property
    def bad(self) -> bool:
        """Whether something was not finite on any process; ``values`` must be there."""
        return bool(self.values[-1] > 0)

    @property
    def scale(self) -> float:
        """What the loss was multiplied by."""
        return float(self.values[-2])


@dataclass(frozen=True)
class SkippedStep:
    """A step that was left out; the same on every process.

    Attributes:
        step: optimiser steps taken before it.
        what: "the loss", "the gradient" or "the loss scale".
        keys: samples of the step: where the loss was not finite those of its micro-batches, else all.
    """

    step: int
    what: str
    keys: list[str]


@dataclass
class FiniteWatch:
    """Leaves out steps whose loss or gradient is not finite, on all processes together, and stops when they do not end.

    On a CPU, and where the optimiser is no fused one, the check comes before the step. On a GPU reading a number makes the
    host wait and the device idle; there the step is left out on the device (a fused optimiser takes ``found_inf``), so are
    all that follow the last one allowed, and the numbers are copied beside the computing and read a few steps later, or
    before anything is saved: the weights are the same in any case. Under fp16 gradients overflow as a matter of course,
    and the scaler leaves those steps out and lowers its scale: only the loss counts, and a scale that has become nothing.

    Attributes:
        patience: steps left out in a row at which the training stops.
        defer: read a step's numbers some steps later; None does so on a GPU.
        skipped: steps left out so far.
        in_row: of them, without a good one between.
        news: those that nobody has been told of yet.
    """

    patience: int = 1
    defer: bool | None = None

    skipped: int = 0
    in_row: int = 0
    news: list[SkippedStep] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)
    pending: list[Report] = field(default_factory=list)
    last: SkippedStep | None = None
    problem: str | None = None
    row: Tensor | None = None  # ``in_row`` on the device, which is ahead of the host

    def add_loss(self, loss: Tensor, keys: list[str]) -> None:
        """Remember the loss () of a micro-batch until the step."""
        self.losses.append(loss.detach().float())
        self.keys.append(list(keys))

    def before_step(self, optimizer: torch.optim.Optimizer, step: int, scaler: Scaler | None) -> None:
        """Check losses and gradients, and have the step left out if they are not finite; called by all processes together.

        Raises:
            UserError: as many steps as are allowed were left out in a row, or the loss scale is nothing.
        """
        if len(self.pending) >= READ_EVERY:
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
        self.pending.append(report)
        fused = all(group.get("fused") for group in optimizer.param_groups)
        on_gpu = device.type == "cuda"
        if not (on_gpu if self.defer is None else self.defer) or not (fused or scaler is not None):
            self.settle()
            if report.bad and scaler is None:
                for parameter in parameters:  # optimisers pass over what has no gradient
                    parameter.grad = None
            return
        if scaler is None:
            row = torch.full((), float(self.in_row), device=device) if self.row is None else self.row
            left_out = torch.maximum(bad, (row >= self.patience).float())
            self.row = (row + 1) * left_out
            optimizer.found_inf = left_out  # type: ignore[attr-defined]  # as GradScaler sets it
        if on_gpu:
            host = torch.empty(report.values.shape, pin_memory=True)
            host.copy_(report.values, non_blocking=True)
            report.values, report.ready = host, torch.cuda.Event()
            report.ready.record()

    def settle(self) -> None:
        """Wait for what is on its way, and count what was left out; called by all processes together.

        Raises:
            UserError: the training has to stop, now or when it was asked before.
        """
        reports, self.pending = self.pending, []
        for report in reports:
            if self.problem is not None:
                break
            if report.ready is not None:
                report.ready.synchronize()
            self._count(report)
        if self.problem is not None:
            raise UserError(self.problem)

    def _count(self, report: Report) -> None:
        if not report.bad:
            self.in_row = 0
            return
        self.skipped, self.in_row = self.skipped + 1, self.in_row + 1
        found = what_was_found(report)
        self.news.append(found)
        self.last = found
        if report.scale < LEAST_SCALE or self.in_row >= self.patience:
            self.problem = sentence(found, self.in_row)

    def at_end(self) -> None:
        """No more steps come; called by all processes together.

        Raises:
            UserError: the last step and the one before were left out: one broken sample may be, a row is a broken model.
        """
        self.settle()
        if self.in_row > 1 and self.last is not None:
            raise UserError(sentence(self.last, self.in_row))

    def state(self) -> dict[str, int]:
        """What a checkpoint holds of it, nothing being on its way."""
        return {"skipped": self.skipped, "in_row": self.in_row}

    def restore(self, state: dict[str, int]) -> None:
        """Go on counting from there."""
        self.skipped, self.in_row, self.row = int(state["skipped"]), int(state["in_row"]), None


def largest_of(values: list[Tensor], device: torch.device) -> Tensor:
    """The largest magnitude () of this process's parts of some tensors; NaN and infinity pass through."""
    parts = [part for part in map(local, values) if part.numel()]
    if not parts:
        return torch.ones((), device=device)
    if device.type == "cpu":  # torch has no fast kernel of this norm there
        return torch.stack([part.abs().max().float() for part in parts]).max()
    return nn.utils.get_total_norm(parts, math.inf).to(device).float()


def any_process(flag: Tensor) -> None:
    """Set ``flag`` () everywhere where it is set anywhere."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)


def what_was_found(report: Report) -> SkippedStep:
    """What was not finite and in which samples; called by all processes together, the same on each."""
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
    return SkippedStep(report.step, what, found[what])


def sentence(found: SkippedStep, in_row: int) -> str:
    """Why the training stops.

    Args:
        found: the last step that was left out.
        in_row: how many were, up to it.
    """
    why = "has fallen to nothing (no step was finite)" if found.what == "the loss scale" else "is not finite"
    row = f" after {in_row} steps in a row were left out" if in_row > 1 else ""
    before = "them" if in_row > 1 else "it"
    return (
        f"Training stopped at step {found.step}{row}: {found.what} {why} in a batch of {len(found.keys)} samples "
        f"({first_three(found.keys)}); the weights stay as they were before {before}: lower the learning rate, or look at "
        f"these samples, and go on from an earlier checkpoint."
    )
