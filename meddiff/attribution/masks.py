"""Random masks over a latent, each with an address: the n-th does not hang on how many there are.

``grid`` masks are RISE's (Petsiuk et al. 2018): a coarse grid of cells, each kept or not, grown bilinearly and moved by a
random part of a cell, so that they are smooth. ``iid`` masks are those of DF-RISE: every latent pixel by itself, which
mostly takes high frequencies away. All channels share a mask.
"""

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.draws import generator

Kind = Literal["grid", "iid"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def mask(kind: Kind, size: tuple[int, int], probability: float, cells: int, *address: object) -> Tensor:
    """One mask (h, w) float32 in [0, 1]; 1 keeps.

    Args:
        size: (h, w).
        probability: that a cell or pixel is kept.
        cells: of a grid, along each axis; no more than there are pixels.
        address: of the draw (seed, key, number, ...).
    """
    draws = generator("mask", kind, *address)
    if kind == "iid":
        return torch.from_numpy((draws.random(size) < probability).astype(np.float32))
    height, width = size
    rows, columns = min(cells, height), min(cells, width)
    tall, wide = -(-height // rows), -(-width // columns)  # of a cell, rounded up
    # one cell more than fits, so that the cut may begin anywhere in the first
    kept = (draws.random((rows + 1, columns + 1)) < probability).astype(np.float32)
    top, left = int(draws.integers(tall)), int(draws.integers(wide))
    grown = F.interpolate(
        torch.from_numpy(kept)[None, None],
        size=((rows + 1) * tall, (columns + 1) * wide),
        mode="bilinear",
        align_corners=False,
    )[0, 0]
    return grown[top : top + height, left : left + width]


def masks(kind: Kind, number: int, size: tuple[int, int], probability: float, cells: int, *address: object) -> Tensor:
    """The first ``number`` masks of an address, (N, h, w)."""
    return torch.stack([mask(kind, size, probability, cells, *address, place) for place in range(number)])
