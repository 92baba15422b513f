"""A trained module back from its checkpoint, without the weights it started from."""

import os
from pathlib import Path
from typing import Any

import torch

from lightning_modules.latent_diffusion import LatentDiffusionModule
from meddiff.common.errors import UserError


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """A ``.ckpt`` file as it is; of a run folder (or its ``checkpoints/``) the one with the most steps.

    Raises:
        UserError: nothing there.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return root
    folder = root / "checkpoints" if (root / "checkpoints").is_dir() else root
    # Newest by time, not by name: `last.ckpt` may be a link that a kill left behind the numbered files.
    found = sorted(folder.glob("*.ckpt"), key=lambda p: (p.stat().st_mtime_ns, p.name)) if folder.is_dir() else []
    if not found:
        raise UserError(f"No checkpoint at {path}: give a .ckpt file or a run folder that has checkpoints/*.ckpt.")
    return found[-1]


def load_module(path: str | os.PathLike[str], **overrides: Any) -> LatentDiffusionModule:
    """Rebuild the module of a checkpoint in eval mode, on the CPU, with its EMA if it kept one.

    Args:
        path: checkpoint file or run folder.
        overrides: hyperparameters to replace, e.g. ``vae=FOLDER`` when the autoencoder has moved.

    Raises:
        UserError: not a checkpoint of this suite.
    """
    file = find_checkpoint(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        parts = checkpoint["architecture"]
        hparams = {**checkpoint["hyper_parameters"], **parts, **overrides}
    except Exception as error:
        raise UserError(f"{file} is not a checkpoint of this suite ({type(error).__name__}: {error}).") from error
    module = LatentDiffusionModule(**hparams)
    module.configure_model()
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return module.eval()
