"""A trained U-Net and text tower as a diffusers folder: the form every source of this suite is read from.

``unet/`` and ``scheduler/`` are what diffusers writes. ``text_encoder/`` is a ``CLIPTextModel``, with one liberty that a
small base model needs: of 49,408 token embeddings a training on a small language touches a few hundred, so the others
may be left out and drawn again from a seed (``token_rows`` in ``config.json``). Source: own.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from meddiff.common.files import write_json
from meddiff.models.schedule_config import ScheduleConfig
from meddiff.models.weights.network_files import write_network, write_state
from meddiff.models.weights.schedule_file import write_scheduler
from meddiff.models.weights.sources import Config
from meddiff.models.weights.token_rows import ROW_IDS, ROWS

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from meddiff.models.text.encoder import TextEncoder


def to_transformers_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of this suite's tower -> names of a transformers ``CLIPTextModel`` (``in_proj`` split into q, k, v)."""
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
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
        converted[f"{target}.{names[part]}.{kind}"] = value
    return converted


def write_text_encoder(encoder: "TextEncoder", folder: Path, rows: Tensor | None, rows_seed: int, half: bool) -> None:
    """Write ``config.json`` and ``model.safetensors``.

    Args:
        encoder: a :class:`meddiff.models.text.encoder.TextEncoder`.
        rows: (R,) ids of the token embeddings to keep; None keeps all, and transformers can then read the folder.
        rows_seed: seed of the others.
        half: store float16.
    """
    own = encoder.config
    config: Config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "dtype": "float32",  # else transformers computes in the type of the file, whatever a pipeline does
        "hidden_size": own["width"],
        "intermediate_size": 4 * own["width"],
        "projection_dim": own["width"],
        "num_attention_heads": own["heads"],
        "num_hidden_layers": own["layers"],
        "hidden_act": own["act"],
        "vocab_size": own["vocab_size"],
        "max_position_embeddings": encoder.positional_embedding.shape[0],
        # the ids of open_clip's tokenizer
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 0,
    }
    state = to_transformers_state({name: value.detach().cpu() for name, value in encoder.state_dict().items()})
    if rows is not None:
        table = state.pop("text_model.embeddings.token_embedding.weight")
        state |= {ROWS: table[rows], ROW_IDS: rows.int()}
        config["token_rows"] = {"seed": rows_seed, "std": own["embedding_std"]}
    write_json(folder / "config.json", config)
    write_state(state, folder / "model.safetensors", half)


def write_model(
    folder: Path,
    unet: "UNet2DConditionModel",
    text_encoder: "TextEncoder",
    schedule: ScheduleConfig,
    rows: Tensor | None = None,
    rows_seed: int = 0,
    half: bool = True,
) -> None:
    """Write ``unet/``, ``text_encoder/`` and ``scheduler/``; ``half`` rounds to float16 (memory keeps float32).

    Args:
        schedule: :func:`meddiff.models.noise_schedule.schedule_config`, with the prediction type the U-Net was trained for.
        rows: see :func:`write_text_encoder`.
    """
    write_network(unet, folder / "unet", half)
    write_text_encoder(text_encoder, folder / "text_encoder", rows, rows_seed, half)
    write_scheduler(folder, schedule, "ddim")
