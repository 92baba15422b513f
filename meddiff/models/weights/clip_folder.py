"""CLIP's text tower as transformers stores it, with one liberty that a small base model needs.

Of 49,408 token embeddings a training on a small language touches a few hundred, so the others may be left out and drawn
again from a seed (``token_rows`` in ``config.json``). Source: transformers; rows own.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from meddiff.common.files import write_json
from meddiff.models.weights.network_files import write_state
from meddiff.models.weights.original_text import text_from_open_clip
from meddiff.models.weights.sources import Config
from meddiff.models.weights.token_rows import ROW_IDS, ROWS, TABLE


def clip_text_config(own: Config) -> Config:
    """``config.json`` of a ``CLIPTextModel`` from the arguments of a :class:`meddiff.models.text.clip_tower.ClipTower`."""
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
        "max_position_embeddings": own.get("max_length", 77),
        # the ids of CLIP's own vocabulary, whose end is where a pooled state would be taken from
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": own.get("pad_id", 0),
    }
    return {**config, "unet_attention_mask": True} if own.get("attention_mask") else config


def write_clip_folder(
    state: Mapping[str, Tensor],
    own: Config,
    folder: Path,
    rows: Tensor | None = None,
    rows_seed: int = 0,
    half: bool = False,
) -> None:
    """Write ``config.json`` and ``model.safetensors``.

    Args:
        state: of a :class:`meddiff.models.text.clip_tower.ClipTower`.
        own: its ``config``.
        rows: (R,) ids of the token embeddings to keep; None keeps all, and transformers can then read the folder.
        rows_seed: seed of the others.
        half: store float16.
    """
    config = clip_text_config(own)
    stored = text_from_open_clip({name: value.detach().cpu() for name, value in state.items()}, own["layers"])
    if rows is not None:
        table = stored.pop(TABLE)
        stored |= {ROWS: table[rows], ROW_IDS: rows.int()}
        config["token_rows"] = {"seed": rows_seed, "std": own["embedding_std"]}
    write_json(folder / "config.json", config)
    write_state(stored, folder / "model.safetensors", half)
