"""Steps whose loss or gradient is not finite change nothing, are written down, and end the training when they do not end."""

import math
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import OnExceptionCheckpoint

from callbacks import RunCheckpoint
from datamodules import LatentShardsDataModule
from lightning_modules import AutoencoderModule, LatentDiffusionModule
from lightning_modules.finite import FiniteWatch
from meddiff.common.errors import UserError
from meddiff.runs.open_run import open_run
from tests.builders.command import call, write_fit
from tests.builders.poisoned import PoisonedModule
from tests.builders.tiny import model_config

State = dict[str, torch.Tensor]


def strict(vae_folder: Path) -> dict[str, Any]:
    """A module that stops at the first step that is not finite."""
    return model_config(vae_folder, stop_after_skipped_steps=1)


class Weights(L.Callback):
    """The weights before each step."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def fit(
    tmp_path: Path, shards: Path, module: L.LightningModule, callbacks: list[L.Callback], steps: int = 6, **trainer: Any
) -> L.Trainer:
    """Train on batches of 8, checkpoints beside."""
    L.seed_everything(0)
    for one in callbacks:
        if isinstance(one, RunCheckpoint):
            one.dirpath = str(tmp_path / "checkpoints")
    made = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, RunCheckpoint) for one in callbacks),
        default_root_dir=tmp_path,
        limit_val_batches=0,
        **trainer,
    )
    made.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
    return made


@pytest.mark.parametrize(
    ("what", "micro_batch", "precision"),
    [("loss", 0, "32-true"), ("loss", 1, "bf16-mixed"), ("gradient", 1, "32-true")],
)
def test_it_stops_before_the_step_and_names_it(
    tmp_path: Path, shards: Path, vae_folder: Path, what: str, micro_batch: int, precision: str
) -> None:
    module = PoisonedModule(at=3, micro_batch=micro_batch, what=what, **strict(vae_folder))
    weights = Weights()
    with pytest.raises(UserError, match=rf"stopped at step 3: the {what} is not finite") as stopped:
        fit(
            tmp_path,
            shards,
            module,
            [weights, RunCheckpoint(every_n_images=8), OnExceptionCheckpoint(tmp_path)],
            accumulate_grad_batches=2,
            precision=precision,
        )
    assert "\n" not in str(stopped.value)
    # a loss is blamed on its micro-batch, a gradient on all of the step
    named = re.findall(r"phantom-\d+", str(stopped.value))
    assert len(named) == 3
    assert f"{4 if what == 'loss' else 8} samples" in str(stopped.value)
    if what == "loss":
        assert named == module.poisoned_keys[:3]
    for name, value in module.state_dict().items():
        assert torch.equal(value, weights.states[-1][name])
        assert value.isfinite().all()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*.ckpt"))
    assert kept == [f"step-0000000{step}.ckpt" for step in (1, 2, 3)]
    assert not (tmp_path / "on_exception.ckpt").exists()
    found = open_run(None, tmp_path / "checkpoints" / kept[-1], vae=str(vae_folder)).module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())


def test_the_last_step_is_looked_at_too(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    module = PoisonedModule(at=2, what="gradient", **strict(vae_folder))
    with pytest.raises(UserError, match="stopped at step 2"):
        fit(tmp_path, shards, module, [RunCheckpoint()], steps=3)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_looking_a_step_later_changes_no_weight(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    """As on a GPU: the fused step is left out where it is taken, and what was found is read with the next one."""
    module, weights = PoisonedModule(at=3, **strict(vae_folder)), Weights()
    module.__dict__["_finite_watch"] = FiniteWatch(defer=True)
    with pytest.raises(UserError, match="stopped at step 3: the loss is not finite") as stopped:
        fit(tmp_path, shards, module, [weights, RunCheckpoint(every_n_images=32)], steps=9)
    assert re.findall(r"phantom-\d+", str(stopped.value)) == module.poisoned_keys[:3]
    assert len(weights.states) == 4  # the checkpoint after step 4 would have been the next
    assert all(torch.equal(value, weights.states[3][name]) for name, value in module.state_dict().items())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_last_step_is_waited_for(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    module = PoisonedModule(at=3, **strict(vae_folder))
    module.__dict__["_finite_watch"] = FiniteWatch(defer=True)
    with pytest.raises(UserError, match="stopped at step 3"):
        fit(tmp_path, shards, module, [], steps=4)


def test_a_training_without_faults_has_the_bits_it_had(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    """Watched at once, watched a step later, and not watched at all."""

    class Unwatched(LatentDiffusionModule):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            pass

    found: list[State] = []
    for place, kind in enumerate((LatentDiffusionModule, LatentDiffusionModule, Unwatched)):
        module = kind(**model_config(vae_folder, freeze_text_encoder=False))
        if place == 1:
            module.__dict__["_finite_watch"] = FiniteWatch(defer=True)
        trainer = fit(tmp_path, shards, module, [], steps=4, gradient_clip_val=0.5)
        (optimizer,) = trainer.optimizers
        moments = {f"{i}/{name}": v for i, one in enumerate(optimizer.state.values()) for name, v in one.items()}
        found.append({**module.state_dict(), **moments})
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


class Shrinking:
    """A loss scaler that has been halved for long."""

    def scale(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs * 1e-5


def test_half_precision_may_overflow_but_not_for_ever() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), math.inf)
    optimizer, watch = torch.optim.SGD([weight]), FiniteWatch()

    class Fresh:
        def scale(self, outputs: torch.Tensor) -> torch.Tensor:
            return outputs * 65536.0

    watch.add_loss(torch.tensor(0.5), ["a"])
    watch.before_step(optimizer, 0, Fresh())  # the scaler leaves this step out by itself
    watch.add_loss(torch.tensor(0.5), ["b", "c"])
    with pytest.raises(UserError, match=r"at step 1: the loss scale has fallen to nothing .* 2 samples \(b, c\)"):
        watch.before_step(optimizer, 1, Shrinking())
    again = FiniteWatch()
    again.add_loss(torch.tensor(math.inf), ["d"])
    with pytest.raises(UserError, match=r"the loss is not finite in a batch of 1 samples \(d\)"):
        again.before_step(optimizer, 2, Fresh())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, shards: Path, vae_folder: Path) -> None:
    class Break(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            if trainer.global_step == 2:
                with torch.no_grad():
                    next(pl_module.parameters()).view(-1)[0] = torch.inf

    module = LatentDiffusionModule(**model_config(vae_folder))
    with pytest.raises(UserError, match="at step 2: weights are not finite"):
        fit(tmp_path, shards, module, [Break(), RunCheckpoint(every_n_images=8)])
    assert [path.name for path in (tmp_path / "checkpoints").glob("step*")] == ["step-00000001.ckpt"]


def test_the_other_modules_stop_too(tmp_path: Path) -> None:
    from datamodules.phantom_images import PhantomImagesDataModule
    from meddiff.phantoms import PhantomOptions

    vae = {"block_out_channels": [8], "norm_num_groups": 4, "sample_size": 32}
    module = AutoencoderModule(vae, learning_rate=1e18)
    trainer = L.Trainer(
        max_steps=20,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    data = PhantomImagesDataModule(PhantomOptions(n=40, resolution=32), batch_size=4, num_workers=0, val_images=4)
    with pytest.raises(
        UserError, match=r"after 10 steps .* (loss|gradient) is not finite in a batch of 4 samples \(phantom-"
    ):
        trainer.fit(module, datamodule=data)
    assert not (tmp_path / "vae").exists()


def test_a_rate_that_breaks_the_model_stops_the_command(
    tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_fit(
        tmp_path / "fit.yaml",
        shards,
        vae_folder,
        {"max_steps": 60},
        checkpoint={"every_n_images": 240},
    )
    code, _, err = call(capsys, "fit", "-c", str(config), "--model.learning_rate", "1e18")
    assert code == 2
    assert re.search(
        r"error: Training stopped at step 1[012] after 10 steps in a row were left out: "
        r"the (loss|gradient) is not finite in a batch of 8",
        err,
    )
    assert "Traceback" not in err
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
