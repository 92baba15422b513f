"""Small real components for the tests: an autoencoder, shards of phantoms, a U-Net and a text tower, random weights."""

import logging
import os
import signal

# Before torch is imported: two processes with default threads are ten times slower on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.builders.tiny import make_shards, make_vae

torch.set_num_threads(1)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AutoencoderKL (64 px -> 4 x 8 x 8) with random weights."""
    return make_vae(tmp_path_factory.mktemp("vae") / "tiny", seed=0)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    """Latent shards of 60 phantoms at 64 px."""
    return make_shards(tmp_path_factory.mktemp("shards") / "phantom", vae_folder)


#: Rooms whose files take longest; "" is the files beside this one, which start many processes.
LONGEST = ("", "lightning_modules", "callbacks", "evaluation", "cli", "launch", "preparation", "models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: a file is one process's, and the last to begin decides when all have ended."""
    rooms = {name: place for place, name in enumerate(LONGEST)}
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        inside = item.path.relative_to(here).parts[:-1] if item.path.is_relative_to(here) else ("elsewhere",)
        return rooms.get(inside[0] if inside else "", len(rooms))

    items.sort(key=place)


@contextmanager
def restored_environment() -> Iterator[None]:
    """Afterwards environment and signal handlers are as before: the command leaves its seed and run folder in the one, a
    Trainer that an error ended its own handlers of SIGTERM, which exit with 0."""
    before = dict(os.environ)
    handlers = {one: signal.getsignal(one) for one in SIGNALS}
    yield
    for one, handler in handlers.items():
        if signal.getsignal(one) is not handler:
            signal.signal(one, handler)
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="module")
def _environment_of_a_module() -> Iterator[None]:
    """What a fixture of one module leaves, the next module must not see."""
    with restored_environment():
        yield


@pytest.fixture(autouse=True)
def _environment_of_a_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test leaves, the next test must not see."""
    # Lightning's log handler keeps the stderr of the first test that captured it.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with restored_environment():
        yield
