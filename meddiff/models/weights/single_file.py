"""A model written as one safetensors file in the layout that Stable Diffusion 1 and 2 were published in. Source: own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open
from meddiff.models.weights.original import METADATA
from meddiff.models.weights.original_text import text_to_open_clip, with_text_model
from meddiff.models.weights.original_unet import unet_to_original
from meddiff.models.weights.original_vae import vae_to_original
from meddiff.models.weights.reading import STORED, State
from meddiff.models.weights.sources import Config, Part

#: The text tower under transformers' names (Stable Diffusion 1) or open_clip's (2); the other parts are the same in both.
Layout = Literal["sd1", "sd2"]
#: A safetensors header is filled up with blanks to a multiple of this, so that the numbers are aligned.
ALIGNED = 8


def to_original(parts: Mapping[Part, tuple[Config, Mapping[str, Tensor]]], layout: Layout) -> State:
    """States of parts under the names of a single file; tensors are views where the numbers stay as they are.

    Args:
        parts: config and state of each, under diffusers' (U-Net, autoencoder) and transformers' (text tower) names.

    Raises:
        UserError: a network that the layout has no names for.
    """
    found: State = {}
    for part, (config, state) in parts.items():
        if part == "unet":
            found |= _with("model.diffusion_model.", unet_to_original(state, config))
        elif part == "vae":
            _wanted(config.get("_class_name", "AutoencoderKL") == "AutoencoderKL", part, config.get("_class_name"))
            found |= _with("first_stage_model.", vae_to_original(state, config))
        else:
            kind = str(config.get("model_type", "clip_text_model"))
            _wanted(kind.startswith("clip"), part, kind)
            if layout == "sd1":
                found |= _with("cond_stage_model.transformer.", with_text_model(state))
            else:
                found |= _with("cond_stage_model.model.", text_to_open_clip(state, config["num_hidden_layers"]))
    return found


def write_single_file(
    path: Path, parts: Mapping[Part, tuple[Config, Mapping[str, Tensor]]], layout: Layout, half: bool = True
) -> None:
    """Write one safetensors file, whole or not at all, tensor by tensor.

    What tensors cannot say (heads, groups of norms, side of the images, scaling factor) stands as JSON in the file's metadata,
    and :func:`meddiff.models.weights.stored.stored_part` reads it there.

    Args:
        parts: as for :func:`to_original`; tensors on any device.
        half: store floats as float16.

    Raises:
        UserError: a network that the layout has no names for.
        OSError: not writable or full.
    """
    # wide types first: then each number lies at a multiple of its own size
    state = dict(sorted(to_original(parts, layout).items(), key=lambda pair: -_stored_type(pair[1], half).itemsize))
    types = {dtype: name for name, dtype in STORED.items()}
    header: dict[str, object] = {
        "__metadata__": {
            "format": "pt",
            METADATA: json.dumps({part: dict(config) for part, (config, _) in parts.items()}),
        }
    }
    end = 0
    for name, value in state.items():
        dtype = _stored_type(value, half)
        begin, end = end, end + value.numel() * dtype.itemsize
        header[name] = {"dtype": types[dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    with atomic_open(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for value in state.values():
            plain = value.detach().to("cpu", _stored_type(value, half)).contiguous()
            stream.write(plain.view(-1).view(torch.uint8).numpy().data)


def _stored_type(value: Tensor, half: bool) -> torch.dtype:
    return torch.float16 if half and value.is_floating_point() else value.dtype


def _with(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _wanted(holds: bool, part: Part, kind: object) -> None:
    if not holds:
        raise UserError(f"{part}: a single file has no names for a {kind}: write a folder.")
