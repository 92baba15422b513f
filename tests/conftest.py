"""Small real components for the tests: an autoencoder, shards of phantoms, a U-Net and a text tower, random weights."""

import logging
import os

# Before torch is imported: two processes with default threads are ten times slower on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.tiny import make_shards, make_vae

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AutoencoderKL (64 px -> 4 x 8 x 8) with random weights."""
    return make_vae(tmp_path_factory.mktemp("vae") / "tiny", seed=0)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    """Latent shards of 60 phantoms at 64 px."""
    return make_shards(tmp_path_factory.mktemp("shards") / "phantom", vae_folder)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command leaves its seed and run folder in the environment; the next test must not see them."""
    # Lightning's log handler keeps the stderr of the first test that captured it.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    before: dict[str, Any] = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
