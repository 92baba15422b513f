"""Small image-plane building blocks: pixel grids, soft edges, smooth noise, low-pass filters. Source: own.

Everything here works in *unit image coordinates* (0..1 from the left, 0..1 from the top) or is unitless, so one
scene renders alike at every resolution. Arrays are float32 of shape (H, W) unless said otherwise.
"""

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

#: An image-plane field (H, W). Always float32 at run time (tested); numpy's stubs cannot follow that through operators.
Field: TypeAlias = NDArray[np.floating]


@lru_cache(maxsize=8)
def pixel_grid(resolution: int) -> tuple[Field, Field]:
    """Centres of the pixels, ``(x, y)`` in unit image coordinates, each (resolution, resolution), read-only."""
    line = ((np.arange(resolution) + 0.5) / resolution).astype(np.float32)
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def ramp(distance: Field, softness: float) -> Field:
    """0 where ``distance`` < -softness, 1 where it is > softness, straight between: an edge with a known width."""
    out = distance * np.float32(0.5 / softness)
    out += np.float32(0.5)
    return np.clip(out, 0.0, 1.0, out=out)


@lru_cache(maxsize=64)
def _spline_basis(resolution: int, cells: int) -> Field:
    """Uniform cubic B-spline weights (resolution, cells + 3): control points to pixels."""
    position = (np.arange(resolution) + 0.5) / resolution * cells
    cell = np.minimum(position.astype(int), cells - 1)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((resolution, cells + 3), np.float32)
    for k in range(4):
        basis[np.arange(resolution), cell + k] = weights[:, k]
    return basis


def smooth_noise(rng: np.random.Generator, resolution: int, cells: int) -> Field:
    """Gaussian-like noise of about unit variance whose blobs are about 1/``cells`` of the image wide."""
    control = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    basis = _spline_basis(resolution, cells)
    noise: Field = (basis @ control @ basis.T) * np.float32(2.0)  # the spline keeps about a quarter of the variance
    return noise


def octaves(rng: np.random.Generator, resolution: int, cells: tuple[int, ...], fall: float) -> Field:
    """Sum of :func:`smooth_noise` at growing frequencies; each octave is ``fall`` times as strong as the one before."""
    total = np.zeros((resolution, resolution), np.float32)
    weight, norm = 1.0, 0.0
    for count in cells:
        total += np.float32(weight) * smooth_noise(rng, resolution, count)
        norm += weight**2
        weight *= fall
    total /= np.float32(norm**0.5)
    return total


def blur_wide(image: Field, sigma: float) -> Field:
    """Gaussian blur of ``sigma`` (in unit coordinates, >= 0.04), made on a grid of about 32 and interpolated back.

    Borders are continued by reflection, as scatter from outside the field would.
    """
    size = image.shape[0]
    step = max(1, size // 32)
    small = image.reshape(size // step, step, size // step, step).mean(axis=(1, 3), dtype=np.float32)
    small = gaussian_filter(small, sigma * small.shape[0], mode="reflect", truncate=2.5)
    index, weight = _stretch(size, small.shape[0])
    rows = small[index] * (1 - weight)[:, None] + small[index + 1] * weight[:, None]
    blurred: Field = rows[:, index] * (1 - weight) + rows[:, index + 1] * weight
    return blurred


@lru_cache(maxsize=16)
def _stretch(size: int, small: int) -> tuple[NDArray[np.int64], Field]:
    """Indices and weights of the linear interpolation from ``small`` to ``size`` pixels (pixel centres aligned)."""
    position = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1 - 1e-6)
    index = np.minimum(position.astype(np.int64), small - 2)
    return index, (position - index).astype(np.float32)
