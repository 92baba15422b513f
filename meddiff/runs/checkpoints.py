"""Checkpoints of a run: which one is meant, what it holds, how far it had come. No Lightning. Source: own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meddiff.common.errors import UserError
from meddiff.runs import names

#: What ``torch.load(weights_only=True)`` gives of a checkpoint.
Checkpoint = dict[str, Any]


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """A ``.ckpt`` file as it is; of a run folder (or its ``checkpoints/``) the newest one.

    Raises:
        UserError: nothing there.
    """
    root = Path(os.path.expanduser(path))
    if root.is_file():
        return root
    folder = root / names.CHECKPOINTS if (root / names.CHECKPOINTS).is_dir() else root
    # Newest by time, not by name: `last.ckpt` may be a link that a kill left behind the numbered files.
    found = sorted(folder.glob("*.ckpt"), key=lambda p: (p.stat().st_mtime_ns, p.name)) if folder.is_dir() else []
    if not found:
        raise UserError(f"No checkpoint at {path}: give a .ckpt file or a run folder that has checkpoints/*.ckpt.")
    return found[-1]


def read_checkpoint(file: Path) -> Checkpoint:
    """The content of a checkpoint of this suite; tensors stay on disk until they are used.

    Raises:
        UserError: not a checkpoint of this suite.
    """
    import torch

    try:
        checkpoint: Checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        _ = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    except Exception as error:
        raise UserError(f"{file} is not a checkpoint of this suite ({type(error).__name__}: {error}).") from error
    return checkpoint


def images_of(checkpoint: Mapping[str, Any]) -> int:
    """Images the model of a checkpoint has been trained on; its optimiser steps where no data module was stored."""
    for value in checkpoint.values():
        if isinstance(value, dict) and "images_consumed" in value:
            return int(value["images_consumed"])
    return int(checkpoint.get("global_step", 0))
