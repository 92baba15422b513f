"""When is a prototype drawn? Its activation in the estimate of the clean image by timestep, against what blur does.

The encoder has learned from clean images, and at much noise the estimate of the clean image is a mean over all that the
image might be: a blur. Anything small is then weak for that reason, so "what is large comes first" is had without any
model. Of an edit of prototype j four curves are told, each as the change of an activation from timestep T to the end:

- ``clean``: s_j(estimate at t, edited) - s_j(image), as published
- ``paired``: s_j(estimate at t, edited) - s_j(estimate at t, not edited): what the edit did by then; the one to read
- ``low_pass``: the same difference between the *finished* pictures, both blurred as an estimate at t is blurred: what
  ``paired`` would be if everything had been decided from the start
- ``random``: ``paired`` of a random prototype, made of the same numbers in another order: what any change of the picture does

Source: Weng et al. 2026 (the curve ``clean``; not in the published code), controls own (spec A7.7).
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.attribution.prototype_edits import Watched
from meddiff.common.draws import generator
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.prototypes import PrototypeEncoder

Floats = NDArray[np.float64]
CURVES = ("paired", "clean", "low_pass", "random")
#: Draws of the interval of t_half.
DRAWS = 400


class Blur(NamedTuple):
    """How images of a cohort look through noise, if nothing were known of them but mean and spectrum.

    Attributes:
        mean: (C, h, w).
        power: (C, h, w // 2 + 1), mean squared amplitude of each frequency of what differs from the mean; white noise of
            variance v has power v everywhere.
    """

    mean: Tensor
    power: Tensor

    def at(self, images: Tensor, signal: float, noise: float) -> Tensor:
        """Images (n, C, h, w) as blurred as the best linear estimate from x_t = signal x0 + noise eps: Wiener's filter."""
        gain = signal**2 * self.power / (signal**2 * self.power + noise**2).clamp(min=1e-12)
        spectrum = torch.fft.rfft2((images - self.mean).double())
        return self.mean + torch.fft.irfft2(gain * spectrum, s=images.shape[-2:]).to(images.dtype)


def blur_of(images: Tensor) -> Blur:
    """Mean and spectrum of images (N, C, h, w)."""
    mean = images.mean(dim=0)
    spectrum = torch.fft.rfft2((images - mean).double())
    return Blur(mean, spectrum.abs().square().mean(dim=0) / (images.shape[-2] * images.shape[-1]))


def random_twin(encoder: PrototypeEncoder, seed: int = 0) -> PrototypeEncoder:
    """The same encoder with prototypes of the same size at other places: the numbers of each in another order."""
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for number, vector in enumerate(encoder.vectors):
            order = generator(seed, "random prototype", number).permutation(len(vector))
            twin.vectors[number] = vector[torch.from_numpy(order).to(vector.device)]
    return twin.eval().requires_grad_(False)


def emergence_curves(
    prototype: int,
    before: Tensor,
    edited: Watched,
    unedited: Watched,
    blurred: tuple[PrototypeEncoder, Blur, NoiseSchedule],
    timesteps: Sequence[int],
) -> dict[str, Floats]:
    """The four curves of one prototype, (T, n) each.

    Args:
        before: (n, m) activations of the images.
        edited, unedited: drawn from the same noise, watched by the encoder and its random twin.
        blurred: encoder, blur and schedule for the control ``low_pass``.
        timesteps: T of them, decreasing.
    """
    encoder, blur, schedule = blurred
    device = next(encoder.parameters()).device
    signals, noises = schedule.signal_and_noise(torch.tensor(list(timesteps), device=device))
    low = []
    for signal, noise in zip(signals.flatten().tolist(), noises.flatten().tolist(), strict=True):
        pair = [blur.at(one.clean, signal, noise).to(device) for one in (edited, unedited)]
        with torch.no_grad():
            after, base = (encoder(one)[:, prototype].cpu() for one in pair)
        low.append(after - base)
    own, twin = (edited.curves[place][..., prototype] - unedited.curves[place][..., prototype] for place in (0, 1))
    found = {
        "paired": own,
        "clean": edited.curves[0][..., prototype] - before[:, prototype].cpu(),
        "low_pass": torch.stack(low),
        "random": twin,
    }
    return {name: found[name].double().numpy() for name in CURVES}


def half_time(timesteps: Sequence[int], curve: Floats) -> float:
    """The timestep at which a curve (T,) first reaches half of where it ends, between two of the grid where it falls there.

    NaN where it does not end above 0.

    Example:
        >>> half_time([900, 600, 300, 0], np.array([0.0, 0.0, 1.0, 1.0]))
        450.0
    """
    end = float(curve[-1])
    if not end > 0:
        return math.nan
    reached = np.flatnonzero(curve >= end / 2)
    place = int(reached[0])
    if place == 0:
        return float(timesteps[0])
    low, high = float(curve[place - 1]), float(curve[place])
    share = (end / 2 - low) / (high - low)
    return timesteps[place - 1] + share * (timesteps[place] - timesteps[place - 1])


class HalfTime(NamedTuple):
    """When half of a change is there, with its 95 % interval over images."""

    value: float
    low: float
    high: float


def half_time_of(timesteps: Sequence[int], curves: Floats, address: tuple[object, ...] = ()) -> HalfTime:
    """Of the mean over images of curves (T, n). No value where the change itself is not told from none."""
    images = curves.shape[1]
    counts = generator("half time", *address).multinomial(images, np.full(images, 1 / images), size=DRAWS)
    means = counts @ curves.T / images  # (DRAWS, T)
    ends = means[:, -1]
    if images < 2 or not np.quantile(ends, 0.025) > 0:
        return HalfTime(math.nan, math.nan, math.nan)
    found = np.array([half_time(timesteps, one) for one in means])
    low, high = np.nanquantile(found, [0.025, 0.975])
    return HalfTime(half_time(timesteps, curves.mean(axis=1)), float(low), float(high))
