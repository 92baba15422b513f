"""Processes agree on a signal; on GPUs one step later, without waiting."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks.stopping import Agreement, StopBetweenSteps


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """One process is a group, too: what is reduced comes back as it is."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def of_two() -> SimpleNamespace:
    return SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device=torch.device("cpu")))


@pytest.mark.parametrize(("defer", "heeded"), [(False, [0, 0, 15, 0]), (True, [0, 0, 0, 15])])
def test_a_signal_is_heeded_at_its_boundary_or_the_next(process_group: None, defer: bool, heeded: list[int]) -> None:
    agreement = Agreement(defer)
    assert [agreement.of(of_two(), signum) for signum in (0, 0, 15, 0)] == heeded


def test_one_process_asks_nobody() -> None:
    alone = SimpleNamespace(world_size=1, strategy=None)
    assert [Agreement(True).of(alone, signum) for signum in (0, 2)] == [0, 2]


def test_lightning_does_not_ask_again_while_training(tmp_path: Path) -> None:
    trainer = Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path
    )
    stop = StopBetweenSteps()
    stop.on_train_start(trainer, LightningModule())
    loop = trainer.fit_loop.epoch_loop
    assert "_broadcast_sigterm_tensor" in vars(loop)
    stop.teardown(trainer, LightningModule(), "fit")
    assert "_broadcast_sigterm_tensor" not in vars(loop)
    assert callable(loop._broadcast_sigterm_tensor)  # the name this stands on is still there
