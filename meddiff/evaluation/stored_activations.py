"""Prototype activations of a run's training images, computed once and kept beside the run. Source: own."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.common.files import atomic_open, make_folder
from meddiff.evaluation.prototype_inputs import activations_of as encoded
from meddiff.evaluation.prototype_inputs import patronus
from meddiff.evaluation.provenance import weights_digest
from meddiff.evaluation.samples import evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.models.patronus import Patronus
from meddiff.runs.opened import Opened
from meddiff.shards.dataset import LatentShardsDataset

#: In the run folder.
FOLDER = "prototypes"


def stored_activations(opened: Opened, ema: bool = False) -> NDArray[np.float32]:
    """Activations (N, m) of all training images, of the latents' mean, in the order of their keys.

    Computed by the first process that asks and written whole to ``RUN/prototypes/activations-IDENTITY.npy``; the identity is
    of the encoder's weights and of the images. Without a run folder they are computed each time.

    Args:
        ema: of the averaged weights.

    Raises:
        UserError: a model without prototypes, or activations that are not finite.
    """
    model = patronus(opened.model)
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
    """(N, m) of all images of a split, of the latents' mean.

    Raises:
        UserError: they are not finite.
    """
    with undisturbed(model):
        means = partial(evaluation_latents, split, seed=0, mean_only=True)
        return encoded(model.prototypes, means, range(len(split))).astype(np.float32)
