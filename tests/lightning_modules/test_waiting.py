"""No step waits for the device, and what a switch cannot do is said."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from lightning_modules.speed import MIB
from meddiff.common.errors import UserError
from tests.builders.sped import state_of, train
from tests.builders.tiny import model_config


class CountsReads(TorchDispatchMode):
    """Reads of a number from a tensor: where the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(
        self,
        func: object,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.reads += str(func).startswith("aten._local_scalar_dense")
        return func(*args, **(kwargs or {}))  # type: ignore[operator]  # an overload of torch


@contextmanager
def made_from_numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Numbers that are copied to a device one by one, which waits as reading does."""
    copied: list[object] = []
    plain = torch.tensor

    def tensor(*args: object, **kwargs: object) -> Tensor:
        if kwargs.get("device") is not None:
            copied.append(args)
        return plain(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "tensor", tensor)
        yield copied


class Reads(L.Callback):
    """Reads and copies of each step, from the batch on the device to the end of the optimiser's step."""

    def __init__(self, copied: list[object]) -> None:
        self.copied, self.steps = copied, []

    def on_train_batch_start(self, *_: object) -> None:
        self.mode, self.before = CountsReads(), len(self.copied)
        self.mode.__enter__()

    def on_train_batch_end(self, *_: object) -> None:
        self.mode.__exit__(None, None, None)
        self.steps.append((self.mode.reads, len(self.copied) - self.before))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_step_reads_nothing_from_the_device(
    shards: Path, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float | None
) -> None:
    L.seed_everything(0)
    module = LatentDiffusionModule(**model_config(vae_folder, speed={"text_cache": 10}, min_snr_gamma=5.0))
    module._watch.defer = True  # as on a GPU
    with made_from_numbers(monkeypatch) as copied:
        reads = Reads(copied)
        trainer = L.Trainer(
            max_steps=5,
            accelerator="cpu",
            logger=False,
            callbacks=[reads],
            gradient_clip_val=clip,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
    # of the step before one number is read, which a GPU has copied beside the computing
    assert [step[0] for step in reads.steps[2:]] == [reads.steps[2][0]] * 3
    assert reads.steps[2][0] <= 1
    assert all(made == 0 for _, made in reads.steps[1:])
    # the control: it sees a number that is read
    with CountsReads() as mode:
        float(torch.ones(3).sum())
    assert mode.reads == 1


def test_prefetching_says_that_it_needs_a_gpu(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    plain = state_of(train(shards, vae_folder, tmp_path, 2))
    with pytest.warns(UserWarning, match="speed.prefetch does nothing on cpu"):
        module = train(shards, vae_folder, tmp_path, 2, speed={"prefetch": True})
    assert all(torch.equal(value, plain[name]) for name, value in state_of(module).items())


def test_a_shared_tower_is_not_cached(vae_folder: Path) -> None:
    from lightning.pytorch.strategies import FSDPStrategy

    module = LatentDiffusionModule(**model_config(vae_folder, speed={"text_cache": 10}))
    module.configure_model()
    strategy = FSDPStrategy(accelerator="cpu")
    with pytest.raises(UserError, match=r"speed\.text_cache: the frozen text tower is shared"):
        module.speed.start(module.model, strategy, torch.device("cpu"))
    assert module.model.text_cache is not None
    assert module.model.text_cache.limit == 10 * MIB
