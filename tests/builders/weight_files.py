"""Weights of tiny parts as files, and files changed in one way."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.builders.tiny import TEXT, UNET

State = dict[str, Tensor]
#: What a download leaves in the place of weights -> what the sentence says of it.
INSTEAD = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3463726504\n", "Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "message": (b'{"error": "Repository not found"}', "JSON text"),
    "empty": (b"", "is empty"),
    "cut": (None, "is damaged"),
}


def make_model(folder: Path) -> Path:
    """``unet/`` and ``text_encoder/`` of tiny networks, float32."""
    from diffusers import UNet2DConditionModel

    from meddiff.models.noise_schedule import schedule_config
    from meddiff.models.text.clip_tower import ClipTower
    from meddiff.models.weights.export import write_model

    torch.manual_seed(0)
    unet, tower = UNet2DConditionModel(**UNET), ClipTower(**TEXT)  # type: ignore[arg-type]
    write_model(folder, unet, tower, schedule_config("epsilon"), half=False)
    return folder


def weights_of(folder: Path) -> Path:
    """The one safetensors file of a part."""
    (file,) = folder.glob("*.safetensors")
    return file


def rewrite(file: Path, change: Callable[[State], State]) -> None:
    """The tensors of a safetensors file, changed."""
    state = {name: value.clone() for name, value in load_file(file).items()}
    save_file({name: value.contiguous() for name, value in change(state).items()}, file)


def replace(file: Path, instead: str) -> None:
    """One of `INSTEAD` in the place of a file."""
    content = INSTEAD[instead][0]
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)


def renamed(state: State) -> State:
    """Every name with something behind it, as another version of a library might write them."""
    return {f"{name}_v2": value for name, value in state.items()}


def without_one(state: State) -> State:
    """The last tensor is missing."""
    return {name: state[name] for name in sorted(state)[:-1]}


def other_shape(state: State) -> State:
    """One tensor has a row more."""
    name = sorted(state)[-1]
    return {**state, name: torch.cat([state[name], state[name][:1]])}


def whole_numbers(state: State) -> State:
    """One tensor as int8, as quantised weights are."""
    name = sorted(state)[-1]
    return {**state, name: state[name].to(torch.int8)}


def one_nan(state: State) -> State:
    """One number is none."""
    name = sorted(state)[-1]
    state[name].view(-1)[0] = torch.nan
    return state


def wrapped(state: State) -> State:
    """Names as DistributedDataParallel and torch.compile leave them."""
    return {f"module._orig_mod.{name}": value for name, value in state.items()}


#: A change -> what the sentence says.
MISFITS: dict[str, tuple[Callable[[State], State], str]] = {
    "renamed": (renamed, "are missing .*, .* are of no use"),
    "without_one": (without_one, "1 of [0-9]+ tensors are missing"),
    "other_shape": (other_shape, "1 have another shape .* instead of"),
    "whole_numbers": (whole_numbers, "1 have another type .*int8 instead of float32"),
    "one_nan": (one_nan, "not finite in 1 of"),
}
