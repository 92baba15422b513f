"""A diffusion model of prototype activations, so that images can be drawn without an image to take them from.

Activations of real images are standardised and a residual network of fully connected layers learns to denoise them. (The
published prior is a convolution over the prototypes' numbers, whose order means nothing, and leaves them as they are.)

Source: Weng et al., ICLR 2026, spec section A2.4; the residual MLP is that of Preechakul et al. 2022 (DiffAE). DDIM as in
Song et al. 2021, eq. 12: at eta 0 the predicted noise leads on and nothing is drawn (the published one draws anew).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.ranges import Range
from meddiff.models.noise_schedule import NoiseSchedule

#: Channels of the sinusoids of a timestep.
SINUSOIDS = 64
#: Of noise: betas of 1000 timesteps (the published 100 of ten times the betas end at the same level).
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


class PrototypePrior(nn.Module):
    """Denoises standardised activations (B, m).

    Args:
        number: of prototypes, m.
        width: of the hidden layers.
        depth: residual blocks.
        dropout: inside them.

    Attributes:
        mean, std: (m,) of the activations that it was trained on; 0 and 1 until :meth:`standardise`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, number: int, width: int = 512, depth: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.noise_schedule = NoiseSchedule("epsilon", LINEAR)
        self.register_buffer("mean", torch.zeros(number))
        self.register_buffer("std", torch.ones(number))
        self.time = nn.Sequential(nn.Linear(SINUSOIDS, width), nn.SiLU(), nn.Linear(width, width))
        self.enter, self.leave = nn.Linear(number, width), nn.Linear(width, number)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        nn.init.zeros_(self.leave.weight)

    @property
    def number(self) -> int:
        """Prototypes, m."""
        return len(self.mean)

    def standardise(self, activations: Tensor) -> None:
        """Take mean and deviation of real activations (N, m); one that does not vary is left where it is."""
        spread = activations.double().std(dim=0)
        self.mean.copy_(activations.double().mean(dim=0))
        self.std.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Predicted noise (B, m) of standardised activations (B, m) at timesteps (B,)."""
        time = self.time(sinusoids(timesteps).to(noisy.dtype))
        hidden = self.enter(noisy)  # (B, width)
        for block in self.blocks:
            hidden = block(hidden, time)
        predicted: Tensor = self.leave(F.silu(hidden))
        return predicted

    def loss(self, activations: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Squared error of the noise of each row, (B,), of activations and noise (B, m) at timesteps (B,)."""
        clean = (activations - self.mean) / self.std
        signal, sigma = self._levels(timesteps)
        return (self(signal * clean + sigma * noise, timesteps) - noise).square().mean(dim=1)

    @torch.no_grad()
    def sample(self, keys: Sequence[str], seed: int, steps: int = 50, eta: float = 0.0) -> Tensor:
        """Activations (B, m), at least 0, drawn by DDIM; each row depends on (seed, key) alone.

        Args:
            steps: of denoising, evenly spaced.
            eta: 0 draws nothing after the first noise, 1 draws as DDPM does.

        Raises:
            UserError: a number out of its range.
        """
        total = len(self.noise_schedule.alphas_cumprod)
        for name, value, rule in (("steps", steps, Range(1, total, whole=True)), ("eta", eta, Range(0.0, 1.0))):
            if not rule.holds(value):
                raise UserError(f"{name} is {value}; it must {rule}.")
        draws = [generator(seed, "prior", key) for key in keys]

        def noise() -> Tensor:
            rows = np.stack([one.standard_normal(self.number, dtype=np.float32) for one in draws])
            return torch.from_numpy(rows).to(self.mean.device)  # (B, m)

        grid = [round(total - 1 - step * total / steps) for step in range(steps)]
        x = noise()
        for timestep, previous in zip(grid, [*grid[1:], -1], strict=True):
            now = torch.full((len(x),), timestep, device=x.device)
            predicted, (signal, sigma) = self(x, now), self._levels(now)
            clean = (x - sigma * predicted) / signal
            if previous < 0:
                x = clean
                break
            ahead, ahead_sigma = self._levels(torch.full_like(now, previous))
            drawn = eta * (ahead_sigma / sigma) * (1.0 - (signal / ahead).square()).sqrt()
            x = ahead * clean + (ahead_sigma.square() - drawn.square()).clamp(min=0.0).sqrt() * predicted
            if eta > 0:
                x = x + drawn * noise()
        return (x * self.std + self.mean).clamp(min=0.0)

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        signal, sigma = self.noise_schedule.signal_and_noise(timesteps)
        return signal.view(-1, 1), sigma.view(-1, 1)  # (B, 1) each


class Block(nn.Module):
    """A residual block: norm, SiLU, linear, scaled by the timestep, and again."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.first = nn.LayerNorm(width), nn.Linear(width, width)
        self.time, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """(B, width) each -> (B, width)."""
        inner = self.first(F.silu(self.norm(hidden))) * (1.0 + self.time(time))
        changed: Tensor = hidden + self.second(self.dropout(F.silu(inner)))
        return changed


def sinusoids(timesteps: Tensor) -> Tensor:
    """(B,) -> (B, 64) float32."""
    half = SINUSOIDS // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
