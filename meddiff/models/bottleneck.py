"""The bottleneck of DDPM's U-Nets, ResNet block, self-attention, ResNet block, in a U-Net that attends to no text.

diffusers' ``UNet2DConditionModel`` has a bottleneck with attention only together with cross-attention to a text; that of its
``UNet2DModel`` takes its place here. Source: Ho et al. 2020; spec section A2.3 (4 heads).
"""

from typing import TYPE_CHECKING

from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from meddiff.models.weights.sources import Config

#: Beside diffusers' own arguments of a U-Net: heads of self-attention in the bottleneck; null or absent leaves it as it is.
HEADS = "mid_attention_heads"


def split_heads(config: "Config") -> tuple["Config", int | None]:
    """A U-Net's config without :data:`HEADS`, and what it says.

    Raises:
        UserError: no such number of heads, or a U-Net that attends to a text in its bottleneck already.
    """
    heads = config.get(HEADS)
    rest = {name: value for name, value in config.items() if name != HEADS}
    if heads is None:
        return rest, None
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise UserError(f"unet.{HEADS} is {heads!r}; it must be a whole number of heads, or null.")
    if config.get("mid_block_type") != "UNetMidBlock2D":
        raise UserError(
            f"unet.{HEADS} is for a bottleneck without text: set unet.mid_block_type to UNetMidBlock2D, or drop it."
        )
    return rest, heads


def give_attention(unet: "UNet2DConditionModel", heads: int | None) -> "UNet2DConditionModel":
    """Put self-attention between two ResNet blocks into the bottleneck, drawn from torch's generator; the same network.

    Raises:
        UserError: the channels do not divide by the heads.
    """
    if heads is None:
        return unet
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

    config = unet.config
    width = config.block_out_channels[-1]
    if width % heads:
        raise UserError(f"unet.{HEADS} is {heads}, which does not divide the {width} channels of the bottleneck.")
    time = config.time_embedding_dim or config.block_out_channels[0] * 4
    unet.mid_block = UNetMidBlock2D(
        in_channels=width,
        temb_channels=time * (2 if config.class_embeddings_concat else 1),
        dropout=config.dropout,
        resnet_eps=config.norm_eps,
        resnet_act_fn=config.act_fn,
        resnet_groups=config.norm_num_groups,
        resnet_time_scale_shift=config.resnet_time_scale_shift,
        output_scale_factor=config.mid_block_scale_factor,
        attention_head_dim=width // heads,
    )
    unet.register_to_config(**{HEADS: heads})
    return unet
