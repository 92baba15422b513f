"""Activation maps of prototypes over the picture that they were made of, each cell where it looks.

The cells of a stack without padding do not reach the border: stretched to the size of the picture, as is usual, a map is
moved by up to half a receptive field towards the corners. Here every cell stands at the middle of its receptive field, and
the border takes the value of the outermost cell. Source: own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.models.receptive_field import Layer, receptive_field


def maps_on_input(maps: Tensor, layers: Sequence[Layer], input_size: tuple[int, int]) -> Tensor:
    """Maps (..., H', W') on the grid of the input, (..., H, W): linear between the middles of receptive fields.

    Example:
        >>> layers = [(3, 1, 0, 1)]  # cells look at three of five: their middles are 1, 2, 3
        >>> maps_on_input(torch.tensor([[1.0, 2.0, 3.0]]), [(1, 1, 0, 1)], (1, 3)).tolist()
        [[1.0, 2.0, 3.0]]
        >>> maps_on_input(torch.eye(3), layers, (5, 5)).diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    rows, columns = (
        _weights(int(cells), layers, side).to(maps) for cells, side in zip(maps.shape[-2:], input_size, strict=True)
    )
    return rows @ maps @ columns.T


def _weights(cells: int, layers: Sequence[Layer], side: int) -> Tensor:
    """(side, cells): how much of each cell stands at each place of the input; rows add up to 1."""
    size, jump, start = receptive_field(layers)
    place = ((torch.arange(side, dtype=torch.float64) - (start + (size - 1) / 2)) / jump).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells, dtype=torch.float64)).abs()).clamp(min=0.0)
