"""Two maps made one: the merge of a map of a real image with those of an image drawn for the same prompt.

``bbm`` (bimodal bias merging) as its published code computes it, and with the product that its text describes. Source: Nuetzel
et al., Generate to ground, 2025 (formula restated); the elementwise product own.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import check_shape
from meddiff.metrics.functional.ms_ssim import WINDOW, structural_similarity
from meddiff.metrics.functional.resize import min_max

#: How the start token's map meets the words' map: as matrices (published), or place by place.
Product = Literal["matrix", "elementwise"]


def map_product(start: Tensor, words: Tensor, product: Product = "matrix") -> Tensor:
    """Maps (..., h, w) of one layer and step multiplied: (..., h, w).

    A matrix product takes row i of the one with column j of the other: what it says of (i, j) comes from other places.

    Raises:
        UserError: an unknown product, or matrices that are not square.

    Example:
        >>> import torch
        >>> start, words = torch.eye(2).flip(0), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> map_product(start, words).tolist(), map_product(start, words, "elementwise").tolist()
        ([[0.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]])
    """
    if product not in get_args(Product):
        raise UserError(f"product is {product!r}; it is 'matrix' or 'elementwise'.")
    if product == "elementwise":
        return start * words
    if start.shape[-2] != start.shape[-1]:
        raise UserError(f"Maps of {start.shape[-2]} x {start.shape[-1]} are no square matrices: take bbm_elementwise.")
    return start @ words


def scaled(maps: Tensor) -> Tensor:
    """Maps (N, H, W) from 0 to 1, float64; one that is constant or not finite is 0 everywhere: it says nothing."""
    return min_max(maps).nan_to_num(0.0)


def likeness(start: Tensor, words: Tensor) -> Tensor:
    """How alike two maps are: their structural similarity as pictures of 256 greys, not below 0; (N,) float64.

    Args:
        start, words: (N, h, w); grids smaller than the window of the similarity (11) are enlarged by repeating.
    """
    check_shape(start)
    times = -(-WINDOW // min(start.shape[1:]))
    a, b = (
        (scaled(maps) * 255).to(torch.uint8).repeat_interleave(times, 1).repeat_interleave(times, 2)[:, None]
        for maps in (start, words)
    )
    return structural_similarity(a, b).clamp_min(0.0)


def bbm_mix(real: Tensor, product: Tensor, share: Tensor) -> Tensor:
    """``2 s (1 - s) (M + A + M A) / 2 + (1 - s)^2 A + s^2 M``, (N, H, W) float64.

    Args:
        real: A, (N, H, W) in 0..1, the map of the real image.
        product: M, (N, H, W) in 0..1.
        share: s, (N,) in 0..1.

    Returns:
        Not bounded by 1: where A = M = 1 it is 1.1875 at s = 0.25. Scores do not depend on the scale.

    Example:
        >>> import torch
        >>> a, m = torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[[1.0, 0.5, 0.0]]])
        >>> bbm_mix(a, m, torch.tensor([0.25])).tolist()
        [[[0.25, 0.546875, 0.75]]]
    """
    a, m, s = real.double(), product.double(), share.double()[:, None, None]
    return 2 * s * (1 - s) * (m + a + m * a) / 2 + (1 - s) ** 2 * a + s**2 * m
