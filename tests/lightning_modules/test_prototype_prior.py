"""Training the prior on a run's activations."""

from pathlib import Path
from typing import cast

import lightning as L
import pytest
import torch
import yaml

from datamodules import LatentShardsDataModule
from datamodules.steps import StepsDataModule
from lightning_modules import LatentDiffusionModule, PatronusModule, PrototypePriorModule
from meddiff.common.errors import UserError
from meddiff.evaluation.stored_activations import FOLDER, activations_of
from meddiff.models.patronus import Patronus
from meddiff.runs.building import build
from meddiff.runs.open_run import open_run
from tests.builders.tiny import model_config, quiet_trainer
from tests.lightning_modules.test_patronus import arguments


def run_of(folder: Path, shards: Path, kind: type[LatentDiffusionModule], given: dict[str, object]) -> Path:
    """A run folder as the command leaves it."""
    L.seed_everything(0)
    trainer = quiet_trainer(folder, 1, limit_val_batches=0)
    trainer.fit(kind(**given), datamodule=LatentShardsDataModule(str(shards), batch_size=8))  # type: ignore[arg-type]
    (folder / "checkpoints").mkdir(parents=True)
    trainer.save_checkpoint(folder / "checkpoints" / "step-00000001.ckpt")
    config = {
        "model": {"class_path": f"lightning_modules.{kind.__name__}", "init_args": given},
        "data": {"class_path": "datamodules.LatentShardsDataModule", "init_args": {"shards": str(shards)}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


class StopAt(L.Callback):
    """As a kill would, without changing how long the training was meant to be."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step >= self.step


@pytest.fixture(scope="module")
def run(shards: Path, vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("patronus"), shards, PatronusModule, arguments(vae_folder))


def fitted(run: Path, folder: Path, steps: int, start: str | None = None, until: int | None = None) -> L.Trainer:
    L.seed_everything(0)
    module = PrototypePriorModule(str(run), width=16, depth=1, batch_size=16)
    trainer = quiet_trainer(folder, steps, [StopAt(until)] if until is not None else None)
    trainer.fit(module, datamodule=StepsDataModule(), ckpt_path=start)
    return trainer


def test_activations_are_those_of_the_training_images_computed_once(run: Path, tmp_path: Path) -> None:
    fitted(run, tmp_path, 1)
    (file,) = (run / FOLDER).iterdir()
    before = file.stat().st_mtime_ns
    module = cast(PrototypePriorModule, fitted(run, tmp_path, 1).lightning_module)
    assert file.stat().st_mtime_ns == before
    opened = open_run(run)
    model, split = cast(Patronus, opened.model), opened.data.dataset("train")
    assert torch.equal(module.activations(), torch.from_numpy(activations_of(model, split)))
    assert module.activations().shape == (len(split), 6)
    assert module.prior is not None
    torch.testing.assert_close(module.prior.mean, module.activations().mean(0))


def test_a_prior_that_goes_on_ends_with_the_same_bits_and_loads_without_its_run(run: Path, tmp_path: Path) -> None:
    fitted(run, tmp_path, 6).save_checkpoint(tmp_path / "through.ckpt")
    fitted(run, tmp_path, 6, until=3).save_checkpoint(tmp_path / "half.ckpt")
    fitted(run, tmp_path, 6, str(tmp_path / "half.ckpt")).save_checkpoint(tmp_path / "on.ckpt")
    through, on = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("through", "on"))
    assert on["global_step"] == 6
    assert all(torch.equal(through["state_dict"][name], on["state_dict"][name]) for name in through["state_dict"])
    half = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert half["global_step"] == 3
    assert not torch.equal(half["state_dict"]["prior.leave.weight"], on["state_dict"]["prior.leave.weight"])

    alone = {**on["hyper_parameters"], **on["architecture"], "run": "gone"}
    module = cast(PrototypePriorModule, build(on["class_path"], alone, ()))
    module.configure_model()
    module.load_state_dict(on["state_dict"])
    assert module.prior is not None
    s = module.eval().prior.sample(["a", "b"], 0, steps=5)  # type: ignore[union-attr]
    model = cast(Patronus, open_run(run).model)
    assert model.draw(model.conditioning(s), ["a", "b"], 0).shape[:3] == (2, 64, 64)


def test_a_run_without_prototypes_is_refused(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "plain", shards, LatentDiffusionModule, model_config(vae_folder))
    with pytest.raises(UserError, match="has no prototypes"):
        PrototypePriorModule(str(run)).configure_model()
