"""Prototype activations of a run's training images, computed once and kept beside the run. Source: own."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, make_folder
from meddiff.evaluation.provenance import weights_digest
from meddiff.evaluation.samples import evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.models.patronus import Patronus
from meddiff.runs.opened import Opened
from meddiff.shards.dataset import LatentShardsDataset

#: In the run folder.
FOLDER = "prototypes"
#: Images that are encoded at a time; changes no result.
BATCH = 64


def stored_activations(opened: Opened, ema: bool = False) -> NDArray[np.float32]:
    """Activations (N, m) of all training images, of the latents' mean, in the order of their keys.

    Computed by the first process that asks and written whole to ``RUN/prototypes/activations-IDENTITY.npy``; the identity is
    of the encoder's weights and of the images. Without a run folder they are computed each time.

    Args:
        ema: of the averaged weights.

    Raises:
        UserError: a model without prototypes, or activations that are not finite.
    """
    model = opened.model
    if not isinstance(model, Patronus):
        raise UserError(
            f"{opened.file} is of a {type(model).__name__}, which has no prototypes: name a run of "
            f"lightning_modules.PatronusModule."
        )
    split = opened.data.dataset(opened.data.train_split)
    with model.weights(ema):
        file = None
        if opened.facts.run is not None:
            file = Path(opened.facts.run) / FOLDER / f"activations-{identity(model, split)}.npy"
            if file.is_file():
                found: NDArray[np.float32] = np.load(file, allow_pickle=False)
                return found
        found = activations_of(model, split)
    if file is not None:
        make_folder(file.parent)
        with atomic_open(file) as stream:
            np.save(stream, found)
    return found


def identity(model: Patronus, split: LatentShardsDataset) -> str:
    """16 letters that tell what activations are of: the encoder's weights, and the images."""
    digest = hashlib.sha256(weights_digest(model.prototypes).encode())
    digest.update(repr([record.sha256 for record in split.manifest.shards if record.split == split.split]).encode())
    digest.update(repr((len(split), split.keys[:1], split.keys[-1:])).encode())
    return digest.hexdigest()[:16]


def activations_of(model: Patronus, split: LatentShardsDataset) -> NDArray[np.float32]:
    """(N, m) of all images of a split.

    Raises:
        UserError: they are not finite.
    """
    rows = []
    with undisturbed(model):
        for start in range(0, len(split), BATCH):
            places = range(start, min(start + BATCH, len(split)))
            x0 = torch.stack([evaluation_latents(split, place, 0, mean_only=True) for place in places])  # (B, C, h, w)
            rows.append(model.activations(x0.to(model.device)).cpu())
    found: NDArray[np.float32] = torch.cat(rows).numpy()
    if not np.isfinite(found).all():
        raise UserError("Prototype activations are not finite: take a checkpoint from before the training broke.")
    return found
