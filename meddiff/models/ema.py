"""Exponential moving average of everything that trains.

Why not Lightning's WeightAveraging: it copies the whole module, swaps averaged weights in during validation and cannot
shard (design decision 9). Source of the decay: Stable Diffusion's LitEma, decay_n = min(decay, (1 + n) / (10 + n)).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.pieces import local, put
from meddiff.models.weights.fitting import fit_state


class EmaState(TypedDict):
    """What a checkpoint holds: the shadow copies by parameter name, float32; cut as the parameters are."""

    decay: float
    updates: int
    shadow: dict[str, Tensor]


class ExponentialMovingAverage:
    """Shadow copies of named parameters, updated with one fused kernel per device and dtype.

    Of parameters in pieces (FSDP2) each process averages its own piece: make this object after they are cut.

    Args:
        named_parameters: the parameters that train (frozen ones are refused: their average is themselves).
        decay: upper bound of the decay.
        every: calls of :meth:`update` between two that read the parameters; those take the decay of all of them.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], decay: float, every: int = 1) -> None:
        if not 0.0 <= decay < 1.0:
            raise UserError(f"ema_decay is {decay}; it must lie in [0, 1).")
        named = list(named_parameters)
        assert all(parameter.requires_grad for _, parameter in named), "EMA is for parameters that train"
        self.decay, self.every = decay, every
        self.updates = 0
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        # float32 whatever the parameters are: in bf16 a step of 1e-4 rounds to nothing.
        self.shadow = [parameter.detach().clone().float() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """shadow += (1 - decay_n) * (parameter - shadow); call once after each optimiser step.

        Between two multiples of ``every`` it only counts; the stored count says where a checkpoint stands.
        """
        self.updates += 1
        if self.updates % self.every:
            return
        decay = math.prod(min(self.decay, (1 + n) / (10 + n)) for n in range(self.updates - self.every, self.updates))
        self._follow_devices()
        # pieces, not tensors in pieces: those would be looked at one by one, and nothing here needs another process
        shadow, parameters = list(map(local, self.shadow)), [local(p).float() for p in self.parameters]
        torch._foreach_lerp_(shadow, parameters, 1.0 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the model computes with the averaged weights; the raw ones come back bit for bit."""
        self._follow_devices()
        raw = [local(parameter).clone() for parameter in self.parameters]
        try:
            self._write(list(map(local, self.shadow)))
            yield
        finally:
            self._write(raw)

    def _follow_devices(self) -> None:
        """The trainer moves the parameters after this object is made."""
        if self.shadow and self.shadow[0].device != self.parameters[0].device:
            self.shadow = [s.to(p.device) for s, p in zip(self.shadow, self.parameters, strict=True)]

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(list(map(local, self.parameters)), values)

    def state_dict(self) -> EmaState:
        return {"decay": self.decay, "updates": self.updates, "shadow": dict(zip(self.names, self.shadow, strict=True))}

    def load_state_dict(self, state: EmaState) -> None:
        """Restore; the decay of the run that asks wins over the stored one.

        Raises:
            UserError: when the stored average is of other parameters (the encoder toggle changed), or not finite.
        """
        if set(state["shadow"]) != set(self.names):
            odd = sorted(set(state["shadow"]) ^ set(self.names))
            raise UserError(
                f"The checkpoint's EMA covers other parameters than those that train now ({len(odd)} differ, e.g. {odd[0]}): "
                f"resume with the same freeze_text_encoder, or start a new run."
            )
        self.restart(state["shadow"])
        self.updates = int(state["updates"])

    @torch.no_grad()
    def restart(self, values: Mapping[str, Tensor]) -> None:
        """Go on from these averages, as if none had been taken yet.

        Raises:
            UserError: one is of another shape or not finite.
        """
        own = dict(zip(self.names, self.shadow, strict=True))
        for name, value in fit_state(own, values, "The checkpoint's EMA", prefixes=()).items():
            put(own[name], value)
        self.updates = 0
