"""The autoencoder of Stable Diffusion in its first layout (``encoder.down.0.block.0``, ``mid.attn_1``).

Its attention is written as 1 x 1 convolutions, and its up-blocks are counted from the latent's side; diffusers has linear
layers and counts from the image's. Both directions are pure functions. Source: own, from the module structure of Rombach
et al.'s ``AutoencoderKL`` and of diffusers'.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from meddiff.models.weights.reading import State
from meddiff.models.weights.renaming import Modules, Shapes, backwards, below, renamed
from meddiff.models.weights.sources import Config

RESNET: Modules = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}
ATTENTION: Modules = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
#: What diffusers called the layers of an attention block before 0.18; the published autoencoders still do.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.")
#: Matrices of the attention, under either layout's names.
_MATRIX = re.compile(r"(mid\.attn_1\.(q|k|v|proj_out)|mid_block\.attentions\.0\.(to_q|to_k|to_v|to_out\.0))\.weight$")
#: What a training of the autoencoder keeps beside it.
SPARE = ("loss.*", "model_ema.*")
#: Of Stable Diffusion 1 and 2; a file does not say it.
SCALING_FACTOR = 0.18215


def vae_modules(levels: int, layers: int) -> Modules:
    """Original -> diffusers names of the modules of an autoencoder.

    Args:
        levels: numbers of channels in ``block_out_channels``.
        layers: ``layers_per_block`` of the encoder; the decoder has one more.
    """
    modules: Modules = {}
    for half, old, new, resnets, sampler in (
        ("encoder", "down", "down_blocks", layers, "downsample"),
        ("decoder", "up", "up_blocks", layers + 1, "upsample"),
    ):
        for level in range(levels):
            place = f"{half}.{new}.{level if half == 'encoder' else levels - 1 - level}"
            for layer in range(resnets):
                modules |= below(RESNET, f"{half}.{old}.{level}.block.{layer}", f"{place}.resnets.{layer}")
            modules[f"{half}.{old}.{level}.{sampler}.conv"] = f"{place}.{sampler}rs.0.conv"
        for one in (1, 2):
            modules |= below(RESNET, f"{half}.mid.block_{one}", f"{half}.mid_block.resnets.{one - 1}")
        modules |= below(ATTENTION, f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0")
        modules[f"{half}.norm_out"] = f"{half}.conv_norm_out"
    return modules


def _modules_of(config: Config) -> Modules:
    return vae_modules(len(config["block_out_channels"]), config["layers_per_block"])


def vae_from_original(state: Mapping[str, Tensor], config: Config) -> State:
    """Original names (without ``first_stage_model.``) -> diffusers'; names that are none of them stay."""
    return linear_attention(renamed(state, _modules_of(config)))


def vae_to_original(state: Mapping[str, Tensor], config: Config) -> State:
    """diffusers' names -> original ones (without ``first_stage_model.``), the attention as 1 x 1 convolutions."""
    return {
        name: value[:, :, None, None] if _MATRIX.search(name) and value.ndim == 2 else value
        for name, value in renamed(new_attention(state), backwards(_modules_of(config))).items()
    }


def linear_attention(state: Mapping[str, Tensor]) -> State:
    """1 x 1 convolutions (C, C, 1, 1) or (C, C, 1) of the attention as matrices (C, C); views, no copies."""
    return {
        name: value.flatten(1) if _MATRIX.search(name) and value.ndim > 2 and value.shape[2:].numel() == 1 else value
        for name, value in state.items()
    }


def new_attention(state: Mapping[str, Tensor]) -> State:
    """diffusers' older names of attention layers -> its present ones; other names stay."""
    return {_OLD.sub(lambda m: f"{m[1]}.{OLD_ATTENTION[m[2]]}.", name): value for name, value in state.items()}


def tell_vae(state: Mapping[str, Tensor], where: str) -> Config:
    """diffusers' config of an autoencoder in the original layout, from names and shapes.

    Tensors do not say the scaling factor (0.18215 of Stable Diffusion 1 and 2 is taken), how many groups a norm has (32) and
    what side its images had (512).

    Raises:
        UserError: what tells is missing.
    """
    shapes = Shapes(state, where)
    levels = max(1, shapes.count(lambda i: f"encoder.down.{i}."))
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": 512,
        "in_channels": shapes.of("encoder.conv_in.weight", 4)[1],
        "out_channels": shapes.of("decoder.conv_out.weight", 4)[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [
            shapes.of(f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)
        ],
        "layers_per_block": max(1, shapes.count(lambda i: f"encoder.down.0.block.{i}.")),
        "latent_channels": shapes.of("decoder.conv_in.weight", 4)[1],
        "mid_block_add_attention": shapes.has("encoder.mid.attn_1."),
        "use_quant_conv": shapes.has("quant_conv."),
        "use_post_quant_conv": shapes.has("post_quant_conv."),
        "scaling_factor": SCALING_FACTOR,
    }
