"""The U-Net of Stable Diffusion 1 and 2 in its first layout (``input_blocks``, ``middle_block``, ``output_blocks``).

There every layer has a running number and down- and upsamplers are layers of their own; diffusers counts within levels.
Both directions are pure functions of a state dict. Source: own, from the module structure of Rombach et al.'s
``openaimodel.UNetModel`` and of diffusers' ``UNet2DConditionModel``.
"""

from collections.abc import Mapping

from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.weights.reading import State
from meddiff.models.weights.renaming import Modules, Shapes, backwards, below, renamed
from meddiff.models.weights.sources import Config

RESNET: Modules = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ENDS: Modules = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
#: Where the file does not say: Stable Diffusion 1 has 8 heads on every level, 2 has heads of 64 channels.
HEADS, HEAD_CHANNELS = 8, 64
#: Latent side of 512 px, what both were published with first (768 px models: 96).
SAMPLE_SIZE = 64


def unet_modules(config: Config) -> Modules:
    """Original -> diffusers names of the modules of a U-Net.

    Args:
        config: ``block_out_channels``, ``layers_per_block`` and ``down_block_types`` of diffusers' config.

    Raises:
        UserError: the original layout has no place for such a network.
    """
    attention = _attention(config)
    levels, layers = len(attention), config["layers_per_block"]
    if not isinstance(layers, int):
        raise UserError(f"unet: layers_per_block is {layers}; the original layout has one number for all levels.")
    modules = dict(ENDS)
    number = 0
    for level in range(levels):
        for layer in range(layers):
            number += 1
            place, old = f"down_blocks.{level}", f"input_blocks.{number}"
            modules |= below(RESNET, f"{old}.0", f"{place}.resnets.{layer}")
            if attention[level]:
                modules[f"{old}.1"] = f"{place}.attentions.{layer}"
        if level < levels - 1:
            number += 1
            modules[f"input_blocks.{number}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    for old, new in (("0", "resnets.0"), ("2", "resnets.1")):
        modules |= below(RESNET, f"middle_block.{old}", f"mid_block.{new}")
    modules["middle_block.1"] = "mid_block.attentions.0"
    for block in range(levels):
        attends = attention[levels - 1 - block]
        for layer in range(layers + 1):
            place, old = f"up_blocks.{block}", f"output_blocks.{block * (layers + 1) + layer}"
            modules |= below(RESNET, f"{old}.0", f"{place}.resnets.{layer}")
            if attends:
                modules[f"{old}.1"] = f"{place}.attentions.{layer}"
            if layer == layers and block < levels - 1:
                modules[f"{old}.{1 + attends}.conv"] = f"{place}.upsamplers.0.conv"
    return modules


def _attention(config: Config) -> list[bool]:
    """Which levels attend, from the top; the up-blocks mirror the down-blocks, as the original layout has it."""
    down = [str(name) for name in config["down_block_types"]]
    up = [str(name) for name in config["up_block_types"]][::-1]
    known = {"CrossAttnDownBlock2D": True, "DownBlock2D": False, "CrossAttnUpBlock2D": True, "UpBlock2D": False}
    odd = [name for name in (*down, *up) if name not in known]
    if odd or [known[name] for name in down] != [known[name] for name in up]:
        raise UserError(
            f"unet: blocks {', '.join(odd) or f'{down} and {up}'} have no place in the original layout: write a folder."
        )
    return [known[name] for name in down]


def unet_from_original(state: Mapping[str, Tensor], config: Config) -> State:
    """Original names (without ``model.diffusion_model.``) -> diffusers'; names that are none of them stay."""
    return renamed(state, unet_modules(config))


def unet_to_original(state: Mapping[str, Tensor], config: Config) -> State:
    """diffusers' names -> original ones (without ``model.diffusion_model.``); names that are none of them stay."""
    return renamed(state, backwards(unet_modules(config)))


def shadow_name(name: str) -> str:
    """Where the average of ``model.NAME`` lies in a training checkpoint: a buffer's name may hold no dots.

    Example:
        >>> shadow_name("model.diffusion_model.out.2.bias")
        'model_ema.diffusion_modelout2bias'
    """
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def tell_unet(state: Mapping[str, Tensor], where: str) -> Config:
    """diffusers' config of a U-Net in the original layout, from names and shapes.

    Tensors do not say into how many heads an attention is split, how many groups a norm has (32 in every published one)
    and what side its images have. Conv projections are Stable Diffusion 1's (8 heads a level), linear ones 2's (64 channels
    a head, one head at least); images are 512 px.

    Args:
        state: names without ``model.diffusion_model.``; values may be on "meta".

    Raises:
        UserError: what tells is missing.
    """
    shapes = Shapes(state, where)
    numbers = shapes.count(lambda i: f"input_blocks.{i}.")
    levels: list[list[int]] = [[]]  # the numbers of a level's layers
    for number in range(1, numbers):
        if shapes.has(f"input_blocks.{number}.0.op."):
            levels.append([])
        else:
            levels[-1].append(number)
    if not all(levels) or len({len(level) for level in levels}) > 1:
        raise UserError(
            f"{where} is not whole: its levels have {[len(level) for level in levels]} layers where all have the same number: "
            f"fetch it again."
        )
    channels = [shapes.of(f"input_blocks.{level[0]}.0.out_layers.3.weight", 4)[0] for level in levels]
    attends = [shapes.has(f"input_blocks.{level[0]}.1.") for level in levels]
    first = next((f"input_blocks.{level[0]}.1" for level, some in zip(levels, attends, strict=True) if some), None)
    first = first or "middle_block.1"
    linear = len(shapes.of(f"{first}.proj_in.weight")) == 2
    depths = [
        shapes.count(lambda i, place=place: f"{place}.transformer_blocks.{i}.")  # type: ignore[misc]
        for place in (*(f"input_blocks.{level[0]}.1" for level in levels), "middle_block.1")
    ]
    depth = [one or 1 for one in depths]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": SAMPLE_SIZE,
        "in_channels": shapes.of("input_blocks.0.0.weight", 4)[1],
        "out_channels": shapes.of("out.2.weight", 4)[0],
        "block_out_channels": channels,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if some else "DownBlock2D" for some in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if some else "UpBlock2D" for some in attends[::-1]],
        "cross_attention_dim": shapes.of(f"{first}.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "transformer_layers_per_block": depth[0] if len(set(depth)) == 1 else depth[:-1],
        "use_linear_projection": linear,
        "attention_head_dim": [max(1, one // HEAD_CHANNELS) for one in channels] if linear else HEADS,
    }
