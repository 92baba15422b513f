"""A U-Net or autoencoder as diffusers writes it: ``config.json`` and one safetensors file. Source: the layout is diffusers'."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json

if TYPE_CHECKING:
    from diffusers import ModelMixin

WEIGHTS = "diffusion_pytorch_model.safetensors"
#: Of the names that begin with an underscore only these say something of the network: another is where it was read from.
KEPT = ("_class_name", "_diffusers_version")


def write_network(network: "ModelMixin", folder: Path, half: bool) -> None:
    """Write ``config.json`` and the weights, one tensor after the other; the network stays as it is.

    Args:
        half: store float16 instead of float32.

    Raises:
        UserError: a weight that is not finite as it would be stored.
    """
    config = json.loads(network.to_json_string())
    write_json(folder / "config.json", {k: v for k, v in config.items() if not k.startswith("_") or k in KEPT})
    write_state(network.state_dict(), folder / WEIGHTS, half)


def write_state(state: dict[str, Tensor], file: Path, half: bool) -> None:
    """Tensors as a safetensors file; floats as float32, or float16 with ``half``.

    Raises:
        UserError: a weight that is not finite as it would be stored.
    """
    from safetensors.torch import save

    stored = {name: as_stored(name, value, half) for name, value in state.items()}
    with atomic_open(file) as stream:
        stream.write(save(stored, {"format": "pt"}))


def as_stored(name: str, value: Tensor, half: bool) -> Tensor:
    """One tensor on the CPU in the type it is stored in.

    Raises:
        UserError: it is not finite there.
    """
    if not value.is_floating_point():
        return value.detach().cpu().contiguous()
    stored = value.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()
    if not stored.isfinite().all():
        remedy = (
            "leave --half out" if bool(value.isfinite().all()) else "take a checkpoint from before the training broke"
        )
        raise UserError(f"{name} is not finite as it would be written: {remedy}.")
    return stored
