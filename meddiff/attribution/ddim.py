"""One step of DDIM from any timestep to any other, without a scheduler: nothing is remembered between two calls.

    x_p = sqrt(a_p) x0 + sqrt(1 - a_p) eps,  x0 and eps as the U-Net's output at x_t says them, a_p = 1 at the clean end

Lists of timesteps are never written into a scheduler of diffusers: DDIM's takes 1000 // n for its step whatever the list
says, and those of several steps keep a history. Source: Song et al. 2021, eq. 12 with eta 0.
"""

import torch
from torch import Tensor

from meddiff.models.noise_schedule import NoiseSchedule


def predicted_noise(noise_schedule: NoiseSchedule, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The eps that an output at x_t stands for, (B, C, h, w); timesteps (B,)."""
    if noise_schedule.prediction_type == "epsilon":
        return output
    signal, sigma = noise_schedule.signal_and_noise(timesteps)
    return signal * output + sigma * noisy


def ddim_step(
    noise_schedule: NoiseSchedule, output: Tensor, noisy: Tensor, timestep: int | Tensor, previous: int | Tensor
) -> Tensor:
    """x at ``previous``, (B, C, h, w).

    Args:
        output: of the U-Net, guided or not, (B, C, h, w).
        noisy: x at ``timestep``, (B, C, h, w).
        timestep: of all rows, or (B,).
        previous: the same; -1 is the clean end, where x is the predicted x0.
    """
    now, then = (_each(place, noisy) for place in (timestep, previous))
    clean = noise_schedule.predicted_x0(noisy, output, now)
    noise = predicted_noise(noise_schedule, output, noisy, now)
    signal, sigma = noise_schedule.signal_and_noise(then.clamp(min=0))  # (B, 1, 1, 1) each
    ends = (then < 0).view(-1, 1, 1, 1)
    # no product with zero: eps may be infinite where x0 is not
    return torch.where(ends, clean, signal * clean + sigma * noise)


def _each(place: int | Tensor, noisy: Tensor) -> Tensor:
    return torch.as_tensor(place, device=noisy.device).long().expand(len(noisy))
