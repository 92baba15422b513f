"""Maps that know nothing of the model: what every map of a denoising step is read against. Source: own (spec section B8)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator


def random_order(key: str, timesteps: Sequence[int], size: tuple[int, int], seed: int = 0) -> Tensor:
    """(S, h, w) uniform draws, of (seed, key, timestep) each: places in no order."""
    draws = [generator("random order", seed, key, int(t)).random(size, dtype=np.float32) for t in timesteps]
    return torch.from_numpy(np.stack(draws))


def moved(maps: Tensor, key: str, timesteps: Sequence[int], seed: int = 0) -> Tensor:
    """Each of (S, h, w) maps shifted around the edges by a draw, at least a quarter of a side along one axis.

    As smooth and as peaked as the map, at another place: what a map gains over this it gains by where it points, where a
    game that prefers connected areas would reward any smooth map over :func:`random_order`.
    """
    found = []
    for one, timestep in zip(maps, timesteps, strict=True):
        draws = generator("moved map", seed, key, int(timestep))
        shifts = [int(draws.integers(side)) for side in one.shape]
        axis = int(draws.integers(2))
        side = one.shape[axis]
        far = max(1, side // 4)
        shifts[axis] = far + int(draws.integers(max(1, side - 2 * far + 1)))
        found.append(one.roll((shifts[0], shifts[1]), (0, 1)))
    return torch.stack(found)


def centre_prior(size: tuple[int, int], steps: int = 1) -> Tensor:
    """(S, h, w): 1 in the middle, falling with the distance from it, to 0 in the corners."""
    down, across = (torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1) for side in size)
    apart = (down[:, None].square() + across.square()).sqrt()
    return (1 - apart / 2**0.5).expand(steps, -1, -1).clone()
