"""A step that is not finite is left out: nothing of it reaches the weights, and everything else goes on."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
import torch
from torch import nn

from callbacks import RunCheckpoint
from callbacks.tracking import JsonlLogger
from datamodules import LatentShardsDataModule
from lightning_modules.finite import READ_EVERY, FiniteWatch
from meddiff.common.errors import UserError
from meddiff.runs import names
from meddiff.runs.metrics_file import read_metrics
from tests.builders.command import write_fit
from tests.builders.command_runs import start
from tests.builders.poisoned import PoisonedModule
from tests.builders.tiny import model_config

State = dict[str, torch.Tensor]


class EachStep(L.Callback):
    """Weights and number of optimiser steps before each step, and at the end."""

    def __init__(self) -> None:
        self.weights: list[State] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self._note(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._note(pl_module)

    def _note(self, module: L.LightningModule) -> None:
        self.weights.append({name: value.detach().clone() for name, value in module.named_parameters()})

    def unchanged(self) -> list[int]:
        """Steps over which no weight changed."""
        pairs = pairwise(self.weights)
        return [i for i, (old, new) in enumerate(pairs) if all(torch.equal(old[k], new[k]) for k in old)]


def fit(folder: Path, shards: Path, module: PoisonedModule, steps: int, ckpt: Path | None = None) -> EachStep:
    """Train on batches of 8 with the rows of a run folder; a checkpoint after each step."""
    L.seed_everything(0)
    seen, saving = EachStep(), RunCheckpoint(every_n_images=8)
    saving.dirpath = str(folder / "checkpoints")
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=JsonlLogger(folder),
        callbacks=[seen, saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        limit_val_batches=0,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8), ckpt_path=ckpt)
    (optimizer,) = trainer.optimizers
    seen.taken = {int(one["step"]) for one in optimizer.state.values()}  # type: ignore[attr-defined]
    return seen


def noted(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / names.SKIPPED).read_text().splitlines()]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_step_changes_nothing_and_training_goes_on(
    tmp_path: Path, shards: Path, vae_folder: Path, what: Literal["loss", "gradient"]
) -> None:
    """At once as on a CPU, and read steps later as on a GPU: the same weights, count and notes."""
    runs: list[EachStep] = []
    for defer in (False, True):
        folder = tmp_path / str(defer)
        module = PoisonedModule(at=2, what=what, **model_config(vae_folder))
        module.__dict__["_finite_watch"] = FiniteWatch(10, defer=defer)
        with pytest.warns(UserWarning, match=rf"Step 2 was left out: the {what} is not finite in a batch of 8 samples"):
            runs.append(fit(folder, shards, module, 5))
        assert runs[-1].unchanged() == [2]  # not 1, not 3: training went on
        assert runs[-1].taken == {4}  # type: ignore[attr-defined]  # moments and bias correction know nothing of it
        (row,) = noted(folder)
        assert (row["step"], row["what"]) == (2, f"the {what}")
        assert row["keys"] == module.poisoned_keys
        counts = [one.get("train/skipped_steps") for one in read_metrics(folder / names.METRICS)]
        assert 1.0 in counts
        assert counts[0] is None
        assert not any(key in (folder / names.METRICS).read_text() for key in row["keys"])
    last = [run.weights[-1] for run in runs]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


@pytest.mark.parametrize("defer", [False, True])
def test_a_row_of_bad_steps_ends_the_training_with_the_weights_before_it(
    tmp_path: Path, shards: Path, vae_folder: Path, defer: bool
) -> None:
    module = PoisonedModule(at=[1, 3, 4, 5], **model_config(vae_folder))
    module.__dict__["_finite_watch"] = FiniteWatch(3, defer=defer)
    with pytest.raises(
        UserError, match=r"stopped at step 5 after 3 steps in a row were left out: the loss is not finite"
    ):
        fit(tmp_path, shards, module, 12)
    assert [row["step"] for row in noted(tmp_path)] == [1, 3, 4, 5]
    kept = {path.name: torch.load(path, weights_only=True) for path in (tmp_path / "checkpoints").glob("step-*.ckpt")}
    good = kept["step-00000003.ckpt"]["state_dict"]
    assert all(torch.equal(good[name], value) for name, value in module.state_dict().items())


def test_steps_after_the_last_one_allowed_change_nothing_until_it_is_read(
    tmp_path: Path, shards: Path, vae_folder: Path
) -> None:
    """Nothing is saved here, so the host reads only READ_EVERY steps later; good steps have come by then."""
    module = PoisonedModule(at=[1, 2], **model_config(vae_folder))
    module.__dict__["_finite_watch"] = FiniteWatch(2, defer=True)
    L.seed_everything(0)
    seen = EachStep()
    trainer = L.Trainer(
        max_steps=30,
        accelerator="cpu",
        logger=False,
        callbacks=[seen],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        limit_val_batches=0,
    )
    with pytest.raises(UserError, match="stopped at step 2 after 2 steps in a row"):
        trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
    assert len(seen.weights) == READ_EVERY + 1
    assert seen.unchanged() == list(range(1, READ_EVERY))


def test_a_training_that_ends_in_a_row_has_no_result(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    """One broken step at the end may be a broken sample; two are a broken model."""
    fit(tmp_path / "one", shards, PoisonedModule(at=[3], **model_config(vae_folder)), 4)
    with pytest.raises(UserError, match="stopped at step 3 after 2 steps in a row"):
        fit(tmp_path / "two", shards, PoisonedModule(at=[2, 3], **model_config(vae_folder)), 4)


def test_a_good_step_between_starts_the_count_anew(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    module = PoisonedModule(at=[1, 3], **model_config(vae_folder, stop_after_skipped_steps=2))
    seen = fit(tmp_path, shards, module, 5)
    assert seen.unchanged() == [1, 3]
    assert (module._watch.skipped, module._watch.in_row) == (2, 0)


def test_the_count_goes_on_after_a_resume(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    config = model_config(vae_folder, stop_after_skipped_steps=3)
    with pytest.raises(UserError, match="after 2 steps in a row"):
        fit(tmp_path, shards, PoisonedModule(at=[2, 3], **config), 4)
    again = PoisonedModule(at=[4], **config)
    with pytest.raises(UserError, match="stopped at step 4 after 3 steps in a row"):
        fit(tmp_path, shards, again, 6, ckpt=tmp_path / "checkpoints" / "step-00000004.ckpt")
    assert again._watch.skipped == 3


@pytest.mark.slow  # the same without the command: test_sharding.py, whose two processes are started once for much else
def test_all_processes_leave_out_the_same_steps_and_stop_together(
    tmp_path: Path, shards: Path, vae_folder: Path
) -> None:
    """Two processes of plain DDP; the loss of the second alone is not finite, once and then twice in a row."""
    config = write_fit(
        tmp_path / "fit.yaml",
        shards,
        vae_folder,
        {"devices": 2, "strategy": "ddp", "max_steps": 8},
        checkpoint={"every_n_images": 8},
        model={
            "class_path": "tests.builders.poisoned.PoisonedModule",
            "init_args": {"at": [2, 4, 5], "rank": 1, **model_config(vae_folder, stop_after_skipped_steps=2)},
        },
    )
    process = start(["-c", str(config)], tmp_path / "record")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2, output
    assert (
        "stopped at step 5 after 2 steps in a row were left out: the loss is not finite in a batch of 4 samples"
        in output
    )
    (file,) = (tmp_path / "runs").rglob(names.SKIPPED)
    rows = [json.loads(line) for line in file.read_text().splitlines()]  # written by one process
    assert [(row["step"], row["what"], len(row["keys"])) for row in rows] == [(i, "the loss", 4) for i in (2, 4, 5)]
    found = {path.name: torch.load(path, weights_only=True) for path in (tmp_path / "runs").rglob("step-*.ckpt")}
    assert sorted(found) == [f"step-0000000{i}.ckpt" for i in range(1, 6)]
    states = [found[name]["state_dict"] for name in sorted(found)]
    same = [all(torch.equal(old[name], new[name]) for name in old) for old, new in pairwise(states)]
    assert same == [False, True, False, True]


def test_an_unfused_optimiser_leaves_the_step_out_too() -> None:
    """Decay and momentum would move the weights even with a gradient of zeros."""
    weight = nn.Parameter(torch.ones(3))
    optimizer, watch = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5), FiniteWatch(5, defer=True)
    for step, value in enumerate((1.0, torch.inf)):
        weight.grad = torch.full((3,), value)
        watch.add_loss(torch.tensor(0.5), ["a"])
        watch.before_step(optimizer, step, None)
        before = weight.detach().clone()
        optimizer.step()
        assert torch.equal(before, weight) == (step == 1)
    assert watch.skipped == 1
