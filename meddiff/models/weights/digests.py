"""The identity of weights: a digest of their numbers, wherever and in whatever format they lie. Source: own."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from meddiff.models.weights.reading import files_of, read_state
from meddiff.models.weights.sources import weights_file


def digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names.

    The header of a safetensors file may be padded or reordered by the tool that wrote it, so tensors are hashed, not bytes.
    """
    return _digest([state])


def fingerprint(folder: Path) -> str:
    """The digest of a folder's tensors under the names they are stored by.

    Raises:
        UserError: no weights, or damaged ones.
    """
    return _digest([read_state(file) for file in files_of(weights_file(folder))])


def _digest(states: list[Mapping[str, Tensor]]) -> str:
    found = hashlib.sha256()
    for state in states:
        for name in sorted(state):
            tensor = state[name].contiguous()
            found.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
            # A view as bytes: numpy has no bfloat16.
            found.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
