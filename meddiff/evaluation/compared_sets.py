"""The three sets behind coverage and copies: training images, held-out real images, drawn ones. Source: own.

A split of training keeps latents and no images, and a drawn image has gone through the decoder: training images are latents
through the autoencoder (:func:`decoded`), and what is compared with them has gone the same way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.evaluation.cores import READING
from meddiff.evaluation.feature_cache import Source
from meddiff.evaluation.image_sets import pixels
from meddiff.evaluation.not_finite import tell
from meddiff.evaluation.provenance import weights_digest
from meddiff.evaluation.samples import evaluation_latents
from meddiff.models.autoencoder import NotFiniteImages, decode
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset


def decoded(model: LatentDiffusion, split: LatentShardsDataset) -> Source:
    """The stored images through the autoencoder, without a draw: the mean of the posterior."""

    def images(indices: Sequence[int]) -> Tensor:
        with READING:
            latents = torch.stack([evaluation_latents(split, i, 0, mean_only=True) for i in indices]).to(model.device)
        try:
            return pixels(decode(model.vae, latents, model.scaling_factor))
        except NotFiniteImages as error:  # NaN goes through to the figures
            tell(error, "autoencoder")
            return torch.full_like(pixels(error.images), torch.nan)

    made = {"images": "decoded means of latents", "autoencoder": weights_digest(model.vae)}
    return Source(images, {**made, "scaling_factor": repr(model.scaling_factor)})


def training_order(train: LatentShardsDataset, seed: int) -> list[int]:
    """Training images in an order drawn by (seed, key): parts that draw for some of their captions draw for the same ones."""
    return sorted(range(len(train)), key=lambda i: float(generator(seed, "copies", train.keys[i]).random()))


def training_problems(train: LatentShardsDataset | None, split: LatentShardsDataset) -> list[str]:
    """One sentence where there is no split of training, or it is the split of held-out images."""
    if train is None or not len(train):
        return ["There are no training images to compare with: evaluate on the shards that the model was trained on."]
    if (train.folder, train.split) == (split.folder, split.split):
        return [f"The split {split.split!r} is the one of training: give held-out images as split."]
    return []


def shared_patients(train: LatentShardsDataset, split: LatentShardsDataset) -> int:
    """Held-out images of patients who have training images, too: they are near to those without any copying."""
    trained = {train.metadata(i)["patient_id"] for i in range(len(train))}
    return sum(split.metadata(i)["patient_id"] in trained for i in range(len(split)))
