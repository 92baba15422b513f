"""Relevance of text tokens for pixels, rolled out over the layers of a U-Net: products only, no matrix of pixels by pixels
but the layers' own.

Chefer et al. 2021, as Park et al. 2024 use it for a pixel side i and a text side q, with A the gradient-weighted attention of a
layer (:func:`meddiff.attribution.relevance_capture.weighted_by_gradient`):

    self-attention    R_iq += A R_iq,  R_ii += A R_ii
    cross-attention   R_iq += norm(R_ii)^T C norm(R_qq),  norm(R) = I + rows of (R - I) / their sums

R_ii = (I + A_n) ... (I + A_1) is never written down: both of its uses are products with (N, L). Its excess over the
identity is carried by itself, since small gradients would vanish beside 1. Corrected (spec section B7 and below): rows and
columns of a layer at lower resolution are resized in two dimensions, and a row without relevance stays one instead of spoiling
its layer.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The pixels of a layer in those of the latents: each of the n is the parent of a block of the N.

    Attributes:
        parent: (N,), the layer's pixel of each of the latents' pixels.
        children: (n,), how many it has.
    """

    parent: Tensor
    children: Tensor

    @classmethod
    def of(cls, size: tuple[int, int], pixels: int, device: torch.device | None = None) -> "Grid":
        """Of a layer with ``pixels`` pixels and latents of ``size`` (h, w); odd sides are halved upwards.

        Raises:
            ValueError: no halving of this size has so many pixels.
        """
        scale = 1
        while -(-size[0] // scale) * -(-size[1] // scale) > pixels:
            scale *= 2
        rows, columns = -(-size[0] // scale), -(-size[1] // scale)
        if rows * columns != pixels:
            raise ValueError(f"a layer of {pixels} pixels does not lie in latents of {size[0]} x {size[1]}")
        down, right = (torch.arange(side, device=device) // scale for side in size)
        parent = (down[:, None] * columns + right[None, :]).flatten()  # (N,)
        return cls(parent, torch.bincount(parent, minlength=pixels))

    def up(self, x: Tensor) -> Tensor:
        """(n, K) -> (N, K): a pixel of the layer is repeated."""
        return x[self.parent]

    def down(self, x: Tensor) -> Tensor:
        """(N, K) -> (n, K): the mean over a block."""
        return self.up_transposed(x) / self.children[:, None]

    def up_transposed(self, x: Tensor) -> Tensor:
        """(N, K) -> (n, K): the sum over a block."""
        return x.new_zeros(len(self.children), x.shape[1]).index_add_(0, self.parent, x)

    def down_transposed(self, x: Tensor) -> Tensor:
        """(n, K) -> (N, K): a block shares what its parent has."""
        return (x / self.children[:, None])[self.parent]


def normalised(excess: Tensor) -> Tensor:
    """norm(R) of R - I (L, L): its rows made to sum to 1, plus I; a row without excess stays I's.

    Example:
        >>> normalised(torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
        tensor([[1.0000, 0.0000],
                [0.7500, 1.2500]])
    """
    return torch.eye(len(excess), device=excess.device) + divided(excess, excess.sum(dim=1, keepdim=True))


def divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where nothing is divided by nothing."""
    there = denominator > 0
    return torch.where(there, numerator / torch.where(there, denominator, 1.0), 0.0)


def rolled_text(layers: list[Tensor], tokens: int, device: torch.device | None = None) -> Tensor:
    """R_qq less the identity, (L, L), of weighted attention layers (L, L) in their order; 0 without any."""
    excess = torch.zeros(tokens, tokens, device=device)
    for layer in layers:
        excess = excess + layer + layer @ excess
    return excess


@dataclass
class Rollout:
    """R_iq of one image at one step.

    Args:
        size: (h, w) of the latents, N = h w.
        text: (L, L), R_qq less the identity (:func:`rolled_text`).
        unit_rows: bring each pixel's row of R_iq to length 1 after each self-attention, as the paper does.
    """

    size: tuple[int, int]
    text: Tensor
    unit_rows: bool = False
    _layers: list[tuple[Tensor, Grid]] = field(default_factory=list)

    def __post_init__(self) -> None:
        pixels, tokens = self.size[0] * self.size[1], len(self.text)
        self.relevance = torch.zeros(pixels, tokens, device=self.text.device)  # (N, L), R_iq
        self._excess = torch.zeros(pixels, 1, device=self.text.device)  # row sums of R_ii - I
        self._text = normalised(self.text)  # norm(R_qq)

    def self_attention(self, weighted: Tensor) -> None:
        """Take a layer (n, n)."""
        grid = Grid.of(self.size, len(weighted), weighted.device)
        self._layers.append((weighted, grid))
        self.relevance = self.relevance + grid.up(weighted @ grid.down(self.relevance))
        self._excess = self._excess + grid.up(weighted @ grid.down(1.0 + self._excess))
        if self.unit_rows:
            self.relevance = divided(self.relevance, self.relevance.norm(dim=1, keepdim=True))

    def cross_attention(self, weighted: Tensor) -> None:
        """Take a layer (n, L)."""
        grid = Grid.of(self.size, len(weighted), weighted.device)
        asked = grid.up(weighted) @ self._text  # (N, L)
        spread = divided(asked, self._excess)  # rows of R_ii - I are divided by their sums
        more = torch.zeros_like(asked)  # (R_ii - I)^T spread
        for layer, own in reversed(self._layers):
            more = more + own.down_transposed(layer.T @ own.up_transposed(spread + more))
        self.relevance = self.relevance + asked + more
