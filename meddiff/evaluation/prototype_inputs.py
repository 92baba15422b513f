"""What a prototype encoder is given of the images of a split, and what it makes of them. Source: own."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.draws import torch_seed
from meddiff.common.errors import UserError
from meddiff.evaluation.samples import evaluation_latents
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus
from meddiff.models.prototypes import PrototypeEncoder
from meddiff.shards.dataset import LatentShardsDataset

#: Pixels or latents (C, h, w) of an image by its index.
Inputs = Callable[[int], Tensor]
#: Images that are encoded at a time; changes no result.
BATCH = 32


def inputs_of(split: LatentShardsDataset, seed: int = 0) -> Inputs:
    """What is denoised of each image, (C, h, w)."""
    return lambda index: evaluation_latents(split, index, seed, mean_only=True)


def activations_of(encoder: PrototypeEncoder, inputs: Inputs, indices: Sequence[int]) -> NDArray[np.float64]:
    """Activations of images by an encoder, (N, m).

    Raises:
        UserError: they are not finite.
    """
    parts = []
    for start in range(0, len(indices), BATCH):
        x0 = torch.stack([inputs(index) for index in indices[start : start + BATCH]])  # (B, C, h, w)
        with torch.no_grad():
            parts.append(encoder(x0.to(encoder.vectors.device)).double().cpu())
    found: NDArray[np.float64] = torch.cat(parts).numpy() if parts else np.empty((0, encoder.m))
    if not np.isfinite(found).all():
        raise UserError(
            "Prototype activations are not finite: take a checkpoint from before the training broke, or a lower learning rate."
        )
    return found


def patronus(model: LatentDiffusion) -> Patronus:
    """The model, if it has prototypes.

    Raises:
        UserError: it has none.
    """
    if not isinstance(model, Patronus):
        raise UserError(
            f"This is a {type(model).__name__}, which has no prototypes: take a run of "
            f"`lightning fit -c configs/patronus.yaml`."
        )
    return model


def untrained_encoder(encoder: PrototypeEncoder, seed: int = 0) -> PrototypeEncoder:
    """An encoder of the same shape with weights drawn anew."""
    twin = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "untrained prototypes"))
        twin.reset()
    return twin.eval().requires_grad_(False)
