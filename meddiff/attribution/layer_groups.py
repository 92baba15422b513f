"""Maps of groups of layers instead of all or each: by where they stand in the U-Net and by their grid.

Source: own; a choice of layers by their grid is part of Vilouras et al., zero-shot phrase grounding with a latent diffusion
model (layers at a quarter of the latents' side, each map brought to 0..1 before maps are averaged).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.attribution.recorder import enlarge


class LayerGroup(NamedTuple):
    """Layers that count as one.

    Attributes:
        part: ``down``, ``mid`` or ``up``.
        pixels: of the layers' grid.
    """

    part: str
    pixels: int


def part_of(layer: str) -> str:
    """Where a layer stands.

    Example:
        >>> part_of("up_blocks.1.attentions.0.transformer_blocks.0.attn2"), part_of("mid_block.attentions.0.attn2")
        ('up', 'mid')
    """
    return layer.partition("_")[0]


class GroupedLayers:
    """A reducer: the mean over the layers of each group, (B, G, K, h, w); groups in the order in which they run.

    Attributes:
        groups: the G groups of the last pass.
        counts: (G,) how many layers each has.
    """

    def __init__(self) -> None:
        self.groups: list[LayerGroup] = []
        self.counts: list[int] = []
        self._sums: dict[LayerGroup, Tensor] = {}
        self._layers: dict[LayerGroup, int] = {}

    def add(self, layer: str, maps: Tensor) -> None:
        """Add the maps of one layer, (B, K, N)."""
        group = LayerGroup(part_of(layer), maps.shape[-1])
        self._sums[group] = self._sums[group] + maps if group in self._sums else maps
        self._layers[group] = self._layers.get(group, 0) + 1

    def take(self, size: tuple[int, int]) -> Tensor:
        """(B, G, K, h, w)."""
        self.groups, self.counts = list(self._sums), list(self._layers.values())
        maps = [enlarge(sums, size) / self._layers[group] for group, sums in self._sums.items()]
        self._sums, self._layers = {}, {}
        return torch.stack(maps, dim=1)


def quarter_grid(grids: list[int], size: tuple[int, int]) -> int:
    """Which of the layers' grids (in pixels) is nearest to a quarter of the latents' side; of equal ones the coarser.

    Example:
        >>> quarter_grid([4096, 1024, 256, 64], (64, 64)), quarter_grid([256], (16, 16))
        (256, 256)
    """
    wanted = max(1, size[0] * size[1] // 16)
    return min(sorted(set(grids)), key=lambda pixels: max(pixels / wanted, wanted / pixels))


class ScaledQuarter:
    """A reducer: the layers of one grid, a quarter of the latents' side, each map from 0 to 1 before their mean.

    Gives (B, K, r, c) on the layers' own grid. A map that is constant adds nothing.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._layers: dict[int, int] = {}

    def add(self, layer: str, maps: Tensor) -> None:
        """Add the maps of one layer, (B, K, N)."""
        low, high = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
        scaled = ((maps - low) / (high - low)).where(high > low, torch.zeros_like(maps))
        pixels = maps.shape[-1]
        self._sums[pixels] = self._sums[pixels] + scaled if pixels in self._sums else scaled
        self._layers[pixels] = self._layers.get(pixels, 0) + 1

    def take(self, size: tuple[int, int]) -> Tensor:
        """(B, K, r, c), r x c the grid of the chosen layers; ``size`` is that of the latents."""
        pixels = quarter_grid(list(self._sums), size)
        mean = self._sums[pixels] / self._layers[pixels]  # (B, K, N)
        scale = round((size[0] * size[1] / pixels) ** 0.5)
        self._sums, self._layers = {}, {}
        return mean.unflatten(-1, (-(-size[0] // scale), -(-size[1] // scale)))
