"""The names of CLIP's text tower in transformers (``CLIPTextModel``) and in open_clip. Source: the two libraries."""

from collections.abc import Mapping

import torch
from torch import Tensor

from meddiff.models.weights.reading import State

#: Layers of a block: transformers' name -> open_clip's.
NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def from_transformers_state(state: State) -> State:
    """Names of a transformers ``CLIPTextModel`` -> open_clip's (q, k, v stacked into ``in_proj``)."""
    state = {key.removeprefix("text_model."): value for key, value in state.items()}
    converted = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    layers = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.layers."))
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            for theirs, ours in NAMES.items():
                converted[f"{new}.{ours}.{kind}"] = state[f"{old}.{theirs}.{kind}"]
            converted[f"{new}.attn.in_proj_{kind}"] = torch.cat(
                [state[f"{old}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            )
    return converted


def to_transformers_state(state: Mapping[str, Tensor]) -> State:
    """open_clip's names -> names of a transformers ``CLIPTextModel`` (``in_proj`` split into q, k, v)."""
    converted = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.final_layer_norm.weight": state["ln_final.weight"],
        "text_model.final_layer_norm.bias": state["ln_final.bias"],
    }
    for name, value in state.items():
        if not name.startswith("transformer.resblocks."):
            continue
        _, _, layer, part = name.split(".", 3)
        target = f"text_model.encoder.layers.{layer}"
        if part.startswith("attn.in_proj_"):
            kind = part.removeprefix("attn.in_proj_")
            for letter, piece in zip("qkv", value.chunk(3), strict=True):
                converted[f"{target}.self_attn.{letter}_proj.{kind}"] = piece
            continue
        part, kind = part.rsplit(".", 1)
        theirs = next(theirs for theirs, ours in NAMES.items() if ours == part)
        converted[f"{target}.{theirs}.{kind}"] = value
    return converted
