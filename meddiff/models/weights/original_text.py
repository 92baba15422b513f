"""The CLIP text tower inside a Stable Diffusion file: transformers' names (1.x) or open_clip's (2.x).

Both directions between open_clip and transformers are pure functions. Source: own, from the module structure of open_clip's
``TextTransformer`` and of transformers' ``CLIPTextModel``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from meddiff.models.weights.reading import State
from meddiff.models.weights.renaming import Modules, Shapes, backwards, below, renamed
from meddiff.models.weights.sources import Config

TEXT_MODEL = "text_model."
BLOCK: Modules = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TABLES: Modules = {
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
}
#: Behind the last block that runs, or a buffer.
SPARE = ("text_projection", "logit_scale", "logit_bias", "attn_mask", "visual.*")
#: Buffers of older versions of transformers, and the projection behind the tower.
CLIP_SPARE = ("text_model.embeddings.position_ids", "text_projection.weight", "logit_scale")
#: Both have heads of 64 channels.
HEAD_CHANNELS = 64
#: OpenAI's vocabulary: start and end token.
START, END = 49406, 49407


def _modules(layers: int) -> Modules:
    """open_clip -> transformers names, without the stacked projections."""
    modules = dict(TABLES)
    for layer in range(layers):
        modules |= below(BLOCK, f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}")
    return modules


def text_from_open_clip(state: Mapping[str, Tensor], layers: int) -> State:
    """open_clip's names -> transformers', the stacked q, k, v apart (views); names that are none of them stay.

    Args:
        layers: blocks that run; those behind them are left out.
    """
    blocks = {f"transformer.resblocks.{layer}" for layer in range(layers)}
    split: State = {}
    plain: State = {}
    for name, value in state.items():
        block, _, kind = name.partition(".attn.in_proj_")
        if kind and block in blocks and value.ndim:
            place = f"text_model.encoder.layers.{block.rsplit('.', 1)[1]}.self_attn"
            # a width that three does not divide stays one short, and is refused as another shape
            for letter, piece in zip("qkv", value.chunk(3), strict=False):
                split[f"{place}.{letter}_proj.{kind}"] = piece
        elif not name.startswith(f"transformer.resblocks.{layers}."):
            plain[name] = value
    return renamed(plain, _modules(layers)) | split


def text_to_open_clip(state: Mapping[str, Tensor], layers: int) -> State:
    """transformers' names -> open_clip's, q, k, v stacked (a copy of those); names that are none of them stay."""
    state = with_text_model(state)
    stacked: State = {}
    for layer in range(layers):
        place = f"text_model.encoder.layers.{layer}.self_attn"
        for kind in ("weight", "bias"):
            pieces = [state[f"{place}.{letter}_proj.{kind}"] for letter in "qkv"]
            stacked[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(pieces)
    plain = {
        name: value for name, value in state.items() if name.rsplit(".", 2)[-2] not in ("q_proj", "k_proj", "v_proj")
    }
    return renamed(plain, backwards(_modules(layers))) | stacked


def with_text_model(state: Mapping[str, Tensor]) -> State:
    """``text_model.`` before the names that transformers 5 writes without it."""
    inside = ("embeddings.", "encoder.", "final_layer_norm.")
    return {f"{TEXT_MODEL}{name}" if name.startswith(inside) else name: value for name, value in state.items()}


def tell_clip(state: Mapping[str, Tensor], where: str) -> Config:
    """transformers' config of the tower of Stable Diffusion 1 (OpenAI's CLIP), from names and shapes.

    Tensors do not say the number of heads (64 channels each), the activation (``quick_gelu``) and the token that fills a text
    up (the end token, 49407).

    Args:
        state: transformers' names, with ``text_model.``.

    Raises:
        UserError: what tells is missing.
    """
    shapes = Shapes(state, where)
    table = shapes.of("text_model.embeddings.token_embedding.weight", 2)
    config = _config(
        table,
        shapes.of("text_model.embeddings.position_embedding.weight", 2)[0],
        shapes.count(lambda i: f"text_model.encoder.layers.{i}."),
        shapes.of("text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
    )
    return {**config, "hidden_act": "quick_gelu", "pad_token_id": config["eos_token_id"]}


def tell_open_clip(state: Mapping[str, Tensor], where: str) -> Config:
    """transformers' config of the tower of Stable Diffusion 2 (open_clip's), from names and shapes.

    A file with ``text_projection`` holds a whole tower, whose last block does not run: Stable Diffusion 2 takes what the one
    before gives. Without it, all blocks run. Tensors do not say the number of heads (64 channels each), the activation
    (``gelu``) and the token that fills a text up (0).

    Raises:
        UserError: what tells is missing.
    """
    shapes = Shapes(state, where)
    layers = shapes.count(lambda i: f"transformer.resblocks.{i}.") - shapes.has("text_projection")
    config = _config(
        shapes.of("token_embedding.weight", 2),
        shapes.of("positional_embedding", 2)[0],
        layers,
        shapes.of("transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
    )
    return {**config, "hidden_act": "gelu", "pad_token_id": 0}


def _config(table: tuple[int, ...], positions: int, layers: int, inner: int) -> Config:
    vocabulary, width = table
    known = vocabulary > END
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "max_position_embeddings": positions,
        "bos_token_id": START if known else vocabulary - 2,
        "eos_token_id": END if known else vocabulary - 1,
    }
