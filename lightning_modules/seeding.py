"""The run's seed, and the global generators that layers draw from. Source: own."""

import os
import random

import numpy as np
import torch


def run_seed() -> int:
    """The seed given to ``seed_everything`` (0 when there was none)."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def reseed(seed: int) -> None:
    """Start the global generators of torch, numpy and Python anew."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # it would also write down, every time, where it was called from for devices that are not there
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (third-party layers may draw from it)
    random.seed(seed)
