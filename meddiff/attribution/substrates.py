"""What stands in for latents that are taken away.

Zeros, as published, are no latents that the U-Net has ever met at that noise. The default is the image without its
structure, noised anew to the same timestep: sqrt(a_t) m + sqrt(1 - a_t) eps', m the mean over places of each channel of the
estimated x0 (spec section B7, 18). ``blur`` is the published start of an insertion. Source: own, and spec section B6.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from meddiff.attribution.similarity import window_matrix
from meddiff.common.draws import generator
from meddiff.models.noise_schedule import NoiseSchedule

Substrate = Literal["renoised", "zero", "blur"]
SUBSTRATES: tuple[Substrate, ...] = get_args(Substrate)
#: Of the published blur.
BLUR_WINDOW, BLUR_SIGMA = 11, 5.0


def structureless(noise_schedule: NoiseSchedule, clean: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """The mean of each channel of ``clean`` (B, C, h, w), noised to timesteps (B,) with ``noise`` (B, C, h, w)."""
    level = clean.mean(dim=(-2, -1), keepdim=True).expand_as(noise)
    return noise_schedule.add_noise(level, noise, timesteps)


def blurred(noisy: Tensor) -> Tensor:
    """(B, C, h, w) under the published Gaussian window, whose weights sum to 1 at the edge as well."""
    rows, columns = (window_matrix(side, BLUR_WINDOW, BLUR_SIGMA).to(noisy) for side in noisy.shape[-2:])
    return rows @ noisy @ columns.T


def address_noise(shape: tuple[int, ...], *address: object) -> Tensor:
    """Standard normal (shape) float32 on the CPU, a function of the address alone."""
    return torch.from_numpy(generator("substrate", *address).standard_normal(shape, dtype=np.float32))
