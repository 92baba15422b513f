"""Pictures that an autoencoder does not know: its posterior there is wider than latents are. Source: own.

A latent is drawn from its posterior at each use. Trained on other pictures, an autoencoder may leave a cell of a latent a
standard deviation of thousands, and training then learns from noise, with a loss that jumps.
"""

import math
from pathlib import Path

import numpy as np

from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest

#: Samples that are looked at, in even steps over a split.
LOOKED = 500


def wide_posteriors(folder: Path, manifest: Manifest, looked: int = LOOKED) -> tuple[int, int]:
    """Of how many samples a cell's standard deviation, scaled as latents are, is above 1; and how many were looked at.

    Args:
        folder: of finished shards; manifest: of the same.
        looked: samples of the largest split, at most.
    """
    splits = {split: manifest.samples(split) for split in manifest.counts if manifest.samples(split)}
    if manifest.latent != "moments" or not splits:
        return 0, 0
    split = LatentShardsDataset(folder, max(splits, key=lambda name: splits[name]))
    limit = -2.0 * math.log(manifest.scaling_factor)  # of log-variances before scaling
    channels = manifest.latent_shape[0]
    places = np.unique(np.linspace(0, len(split) - 1, min(looked, len(split))).astype(int)).tolist()
    found = sum(bool((split.latent(place)[channels:] > limit).any()) for place in places)
    return found, len(places)


def print_wide_posteriors(folder: Path, manifest: Manifest) -> None:
    """A line if there are any."""
    found, looked = wide_posteriors(folder, manifest)
    if found:
        print(
            f"beware: in {found} of {looked} latents that were looked at, the autoencoder is less sure of a place than latents "
            f"vary at all: it does not know such pictures. Train with --data.mean_only true, or prepare with another --vae"
        )
