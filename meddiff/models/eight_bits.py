"""Images as bytes: what is stored, and what others' networks take. Source: own."""

import torch
from torch import Tensor


def eight_bits(images: Tensor) -> Tensor:
    """Images in [-1, 1], beyond which they are cut, as uint8 of the same shape; what is no number has no meaning there.

    Example:
        >>> eight_bits(torch.tensor([-2.0, -1.0, 0.0, 1.0])).tolist()
        [0, 0, 128, 255]
    """
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
