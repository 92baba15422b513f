"""Cross-attention of a diffusers U-Net, contracted to groups of tokens where it is made.

Only the cross-attention processors are replaced, and only while the recorder is open; self-attention stays on fused
SDPA. A layer's probabilities (pixels x 77 tokens) are averaged over heads, multiplied by a token-to-group matrix and
added into one sum per resolution: nothing is kept per layer or per step. Source: spec/tradeoff.md sections 5 and 10.
"""

from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.errors import UserError

CROSS_ATTENTION = "attn2.processor"


class CrossAttentionRecorder:
    """Context manager that records cross-attention maps of every forward pass run inside it.

    All cross-attention layers count alike (sixteen in Stable Diffusion 2), as do all heads.

    Args:
        unet: a ``UNet2DConditionModel``; gets its own processors back on exit, also after an exception.

    Raises:
        UserError: the U-Net has no cross-attention.

    Example::

        with CrossAttentionRecorder(unet) as recorder:
            recorder.groups = groups  # (B, K, 77): row k averages the tokens of word k
            unet(noisy, timesteps, encoder_hidden_states=text)
            maps = recorder.take(noisy.shape[-2:])  # (B, K, h, w)
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self.layers = [name for name in getattr(unet, "attn_processors", {}) if name.endswith(CROSS_ATTENTION)]
        if not self.layers:
            raise UserError("This U-Net has no cross-attention layers (no attn2): there is nothing to record.")
        self.groups: Tensor | None = None
        self._sums: dict[int, Tensor] = {}
        self._seen = 0
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._before = dict(self.unet.attn_processors)
        ours = _RecordingProcessor(self)
        self.unet.set_attn_processor({name: ours if name in self.layers else p for name, p in self._before.items()})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unet.set_attn_processor(self._before)
        self._sums.clear()

    def add(self, probabilities: Tensor) -> None:
        """Take the attention of one layer: (B, heads, N, 77)."""
        if self.groups is None:
            raise RuntimeError("CrossAttentionRecorder: set `groups` before the U-Net runs.")
        mean = probabilities.mean(dim=1)  # (B, N, 77)
        maps = self.groups.to(mean) @ mean.transpose(1, 2)  # (B, K, N)
        pixels = maps.shape[-1]
        self._sums[pixels] = self._sums[pixels] + maps if pixels in self._sums else maps
        self._seen += 1

    def take(self, size: tuple[int, int] | torch.Size) -> Tensor:
        """The mean over the layers of the last forward pass, and forget it.

        Args:
            size: (h, w) of the latents; layers at lower resolution are repeated pixel by pixel (nearest).

        Returns:
            (B, K, h, w) float32.
        """
        if self._seen != len(self.layers):
            raise RuntimeError(f"CrossAttentionRecorder: {self._seen} layers ran, {len(self.layers)} were expected.")
        height, width = size
        total: Tensor | None = None
        for pixels, sums in self._sums.items():
            scale = round((height * width / pixels) ** 0.5)
            # U-Nets halve odd sides upwards, so the grid of a layer is rounded up, and cut after repeating
            rows, columns = -(-height // scale), -(-width // scale)
            grid = sums.unflatten(-1, (rows, columns))  # (B, K, rows, columns)
            full = F.interpolate(grid, scale_factor=float(scale), mode="nearest") if scale > 1 else grid
            full = full[..., :height, :width]  # (B, K, h, w)
            total = full if total is None else total + full
        if total is None:
            raise RuntimeError("CrossAttentionRecorder: take() before any forward pass.")
        maps = total / self._seen
        self._sums.clear()
        self._seen = 0
        return maps


class _RecordingProcessor:
    """Attention as diffusers computes it, with the probabilities in float32 and in sight."""

    def __init__(self, recorder: CrossAttentionRecorder) -> None:
        self.recorder = recorder

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, N, C), encoder_hidden_states (B, 77, D) -> (B, N, C)."""
        if attention_mask is not None or hidden_states.ndim != 3 or encoder_hidden_states is None:
            raise RuntimeError("CrossAttentionRecorder: a cross-attention layer it was not written for.")

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, N, C) -> (B, heads, N, C / heads)

        query = heads(attn.to_q(hidden_states))
        key, value = heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        with torch.autocast(query.device.type, enabled=False):  # the paper's maps are float32 under fp16 as well
            scores = query.float() @ key.float().transpose(-1, -2) * attn.scale  # (B, heads, N, 77)
            probabilities = scores.softmax(dim=-1)
        self.recorder.add(probabilities)
        mixed = (probabilities.to(value.dtype) @ value).transpose(1, 2).flatten(2)  # (B, N, C)
        projected: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return (projected + hidden_states if attn.residual_connection else projected) / attn.rescale_output_factor
