"""How a latent diffusion model is optimised: what trains at which rate, and for how long. Functions, no state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lightning_modules.preflight import wrong_values
from meddiff.common.errors import UserError, refuse
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus

Shape = Literal["constant", "cosine"]


class ParameterGroup(TypedDict):
    """One group of AdamW."""

    name: str
    params: list[nn.Parameter]
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Rates:
    """What trains how fast; the fields are arguments of :class:`LatentDiffusionModule` and of :class:`PatronusModule`.

    Raises:
        UserError: an unknown shape, or a number that is not finite or negative.
    """

    learning_rate: float
    text_encoder_learning_rate: float | None
    weight_decay: float
    warmup_steps: int
    shape: Shape
    prototypes_learning_rate: float | None = None
    decay_prototypes: bool = False

    def __post_init__(self) -> None:
        if self.shape not in ("constant", "cosine"):
            raise UserError(f"learning_rate_schedule is {self.shape!r}; it must be 'constant' or 'cosine'.")
        refuse(wrong_values(vars(self)))


def parameter_groups(model: LatentDiffusion, rates: Rates) -> list[ParameterGroup]:
    """The U-Net, a learnable text tower at its own rate, and prototypes with their encoder.

    Weight decay would draw prototypes towards the patch without features: they have none unless they are told to.
    """
    decay = rates.weight_decay
    parts: list[tuple[str, list[nn.Parameter], float | None, float]] = [
        ("unet", list(model.unet.parameters()), None, decay)
    ]
    if not model.freeze_text_encoder and any(True for _ in model.text_encoder.parameters()):
        parts.append(("text_encoder", list(model.text_encoder.parameters()), rates.text_encoder_learning_rate, decay))
    if isinstance(model, Patronus):
        kept = decay if rates.decay_prototypes else 0.0
        parts.append(("prototypes", model.prototype_parameters(), rates.prototypes_learning_rate, kept))
    return [
        {"name": name, "params": weights, "lr": rates.learning_rate if rate is None else rate, "weight_decay": kept}
        for name, weights, rate, kept in parts
    ]


def rate_factor(rates: Rates, total_steps: int) -> Callable[[int], float]:
    """Step -> what the rates are multiplied by: a linear warm-up, then constant or a cosine to zero."""
    warmup = max(1, rates.warmup_steps)

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup)
        fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total_steps)))
        return rise * fall if rates.shape == "cosine" else rise

    return factor


def adamw(model: LatentDiffusion, rates: Rates, total_steps: int, fused: bool) -> tuple[torch.optim.AdamW, LambdaLR]:
    """The optimiser and its learning rate schedule.

    Args:
        fused: one kernel for all parameters; it unscales gradients itself.
    """
    groups = [dict(group) for group in parameter_groups(model, rates)]
    optimizer = torch.optim.AdamW(groups, weight_decay=rates.weight_decay, fused=fused)
    return optimizer, LambdaLR(optimizer, rate_factor(rates, total_steps))


def take_rates(schedule: LambdaLR, model: LatentDiffusion, rates: Rates) -> None:
    """What the user says now wins over the rates and decay that a checkpoint's optimiser state brought back."""
    for i, ours in enumerate(parameter_groups(model, rates)):
        group = schedule.optimizer.param_groups[i]
        schedule.base_lrs[i] = group["initial_lr"] = ours["lr"]
        group["lr"] = ours["lr"] * schedule.lr_lambdas[i](schedule.last_epoch)
        group["weight_decay"] = ours["weight_decay"]
