"""Cross-attention of a diffusers U-Net, contracted to groups of tokens where it is made.

Only the cross-attention processors are replaced, and only while the recorder is open; self-attention stays on fused
SDPA. A layer's probabilities (pixels x L tokens) are averaged over heads, multiplied by a token-to-group matrix and
handed to a reducer: the default adds them into one sum per resolution and keeps nothing per layer or per step.
Concepts that the prompt does not hold are compared with the same queries on the way (:mod:`meddiff.attribution.concepts`).
Source: spec/tradeoff.md sections 5 and 10.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.attribution.concepts import Concepts, concept_maps
from meddiff.attribution.eager_attention import Seen, attend
from meddiff.attribution.plain_unet import layer_by_layer
from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

CROSS_ATTENTION = "attn2.processor"


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of one layer (B, K, N) -> (B, K, h, w): pixels of a lower resolution are repeated (nearest)."""
    height, width = size
    scale = round((height * width / maps.shape[-1]) ** 0.5)
    # U-Nets halve odd sides upwards, so the grid of a layer is rounded up, and cut after repeating
    rows, columns = -(-height // scale), -(-width // scale)
    grid = maps.unflatten(-1, (rows, columns))  # (B, K, rows, columns)
    full = F.interpolate(grid, scale_factor=float(scale), mode="nearest") if scale > 1 else grid
    return full[..., :height, :width]  # (B, K, h, w)


class LayerReducer(Protocol):
    """What becomes of the maps of a forward pass's layers."""

    def add(self, layer: str, maps: Tensor) -> None:
        """Take the maps of one layer, (B, K, N)."""
        ...

    def take(self, size: tuple[int, int]) -> Tensor:
        """The result at the latents' size (h, w), and forget it."""
        ...


class MeanOverLayers:
    """All layers count alike: (B, K, h, w). Layers of one resolution share one sum, so nothing is kept per layer."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._layers = 0

    def add(self, layer: str, maps: Tensor) -> None:
        """Add the maps of one layer, (B, K, N)."""
        pixels = maps.shape[-1]
        self._sums[pixels] = self._sums[pixels] + maps if pixels in self._sums else maps
        self._layers += 1

    def take(self, size: tuple[int, int]) -> Tensor:
        """(B, K, h, w)."""
        total: Tensor | None = None
        for sums in self._sums.values():
            full = enlarge(sums, size)
            total = full if total is None else total + full
        assert total is not None, "the recorder counts the layers before"
        maps = total / self._layers
        self._sums, self._layers = {}, 0
        return maps


class EachLayer:
    """Every layer by itself: (B, L, K, h, w), L in the order in which layers run; their names are in ``layers``."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self._maps: list[Tensor] = []

    def add(self, layer: str, maps: Tensor) -> None:
        """Keep the maps of one layer, (B, K, N)."""
        if not self._maps:
            self.layers = []
        self.layers.append(layer)
        self._maps.append(maps)

    def take(self, size: tuple[int, int]) -> Tensor:
        """(B, L, K, h, w)."""
        maps = torch.stack([enlarge(one, size) for one in self._maps], dim=1)
        self._maps = []
        return maps


class CrossAttentionRecorder:
    """Context manager that records cross-attention maps of every forward pass run inside it.

    All cross-attention layers count alike (sixteen in Stable Diffusion 2), as do all heads.

    Args:
        unet: gets its own processors back on exit, also after an exception.
        reducer: what becomes of the layers; None takes their mean.
        concepts: phrases whose maps are wanted beside those of the prompt's words; they change nothing else.
        concept_reducer: what becomes of their layers; None takes their mean.

    Attributes:
        concept_maps: (B, C, h, w) of the concepts, or as their reducer gives them, of the pass that was last taken.

    Raises:
        UserError: the U-Net has no cross-attention.

    Example::

        with CrossAttentionRecorder(unet) as recorder:
            recorder.groups = groups  # (B, K, L): row k averages the tokens of word k
            unet(noisy, timesteps, encoder_hidden_states=text)
            maps = recorder.take(noisy.shape[-2:])  # (B, K, h, w)
    """

    def __init__(
        self,
        unet: "UNet2DConditionModel",
        reducer: LayerReducer | None = None,
        concepts: Concepts | None = None,
        concept_reducer: LayerReducer | None = None,
    ) -> None:
        self.unet = unet
        self.layers = [name for name in getattr(unet, "attn_processors", {}) if name.endswith(CROSS_ATTENTION)]
        if not self.layers:
            raise UserError("This U-Net has no cross-attention layers (no attn2): there is nothing to record.")
        self.groups: Tensor | None = None
        self.reducer: LayerReducer = MeanOverLayers() if reducer is None else reducer
        self.concepts, self.concept_maps = concepts, torch.empty(0)
        self.concept_reducer: LayerReducer = MeanOverLayers() if concept_reducer is None else concept_reducer
        self._seen = 0
        self._before: dict[str, object] = {}
        self._plain = ExitStack()

    def __enter__(self) -> Self:
        self._plain.enter_context(layer_by_layer(self.unet))
        if self.concepts is not None:  # a U-Net may project its text once, before all layers
            self.concepts = self.concepts.projected(self.unet)
        self._before = dict(self.unet.attn_processors)
        ours = {name: _RecordingProcessor(self, name.removesuffix(".processor")) for name in self.layers}
        self.unet.set_attn_processor({**self._before, **ours})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unet.set_attn_processor(self._before)
        self._plain.close()

    def add(self, layer: str, probabilities: Tensor) -> None:
        """Take the attention of one layer: (B, heads, N, L)."""
        if self.groups is None:
            raise RuntimeError("CrossAttentionRecorder: set `groups` before the U-Net runs.")
        mean = probabilities.mean(dim=1)  # (B, N, L)
        self.reducer.add(layer, self.groups.to(mean) @ mean.transpose(1, 2))  # (B, K, N)
        self._seen += 1

    def add_concepts(self, layer: str, attn: "Attention", seen: Seen) -> None:
        """Compare one layer's queries with the concepts, if there are any."""
        if self.concepts is not None:
            self.concept_reducer.add(layer, concept_maps(self.concepts, attn, seen))  # (B, C, N)

    def take(self, size: tuple[int, int] | torch.Size) -> Tensor:
        """What the reducer makes of the last forward pass, by default the mean over its layers, and forget it.

        Args:
            size: (h, w) of the latents; layers at lower resolution are repeated pixel by pixel (nearest).

        Returns:
            (B, K, h, w) float32 (:class:`MeanOverLayers`) or (B, L, K, h, w) (:class:`EachLayer`).
        """
        if self._seen != len(self.layers):
            raise RuntimeError(f"CrossAttentionRecorder: {self._seen} layers ran, {len(self.layers)} were expected.")
        self._seen = 0
        if self.concepts is not None:
            self.concept_maps = self.concept_reducer.take((size[0], size[1]))
        return self.reducer.take((size[0], size[1]))


class _RecordingProcessor:
    """Attention as diffusers computes it, seen by the recorder."""

    def __init__(self, recorder: CrossAttentionRecorder, layer: str) -> None:
        self.recorder, self.layer = recorder, layer

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, N, C), encoder_hidden_states (B, L, D), attention_mask (B, 1, L), added -> (B, N, C)."""
        if encoder_hidden_states is None:
            raise RuntimeError("CrossAttentionRecorder: a cross-attention layer it was not written for.")

        def look(seen: Seen) -> Tensor:
            self.recorder.add(self.layer, seen.probabilities)
            self.recorder.add_concepts(self.layer, attn, seen)
            return seen.probabilities

        return attend(attn, hidden_states, encoder_hidden_states, attention_mask, look)
