"""Stable Diffusion's layout at a small width, with random weights: what benchmarks of the U-Net measure on."""

from typing import TYPE_CHECKING

import torch

from meddiff.models.backbones import build_unet

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def small_unet(width: int, latents: int) -> "UNet2DConditionModel":
    """Sixteen cross-attention layers over states of 128; torch's seed is set to 0, so the weights are the same at every call.

    Args:
        width: channels of the first level; 320 is Stable Diffusion's.
        latents: side of the latents.
    """
    torch.manual_seed(0)
    widths = [width, 2 * width, 4 * width, 4 * width]
    return build_unet(
        {
            "sample_size": latents,
            "block_out_channels": widths,
            "layers_per_block": 2,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            "cross_attention_dim": 128,
            "attention_head_dim": [max(1, channels // 64) for channels in widths],  # diffusers' name for heads
            "use_linear_projection": True,
            "norm_num_groups": 16,
        }
    )
