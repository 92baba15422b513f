"""Generators whose pictures are planted: what a measurement must say of them is known."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from meddiff.evaluation.compared_sets import decoded
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

#: Keys -> pictures, uint8 (B, H, W, 3).
Planted = Callable[[Sequence[str]], NDArray[np.uint8]]


def drawing(model: LatentDiffusion, plant: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the model draw what is planted."""

    def sample(prompts: Sequence[str], keys: Sequence[str], *_: object, **__: object) -> NDArray[np.uint8]:
        return plant(keys)

    monkeypatch.setattr(model, "sample", sample)


@cache
def decoded_bytes(model: LatentDiffusion, split: LatentShardsDataset) -> NDArray[np.uint8]:
    """The images of a split through the autoencoder, (N, H, W, 3)."""
    with torch.no_grad():
        images = decoded(model, split).images(range(len(split)))
    found: NDArray[np.uint8] = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return found
