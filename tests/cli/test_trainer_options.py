"""Options of the trainer that an endless stream, a run folder or any trainer at all cannot have."""

import pytest
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import LatentShardsDataModule, PhantomImagesDataModule
from meddiff.cli.trainer_options import trainer_problems
from tests.builders.command import call, write_fit


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("val_check_interval", 0.5, "give a number of steps"),
        ("val_check_interval", 1.0, "give a number of steps"),
        ("limit_train_batches", 0.5, "give a number of batches"),
        ("overfit_batches", 0.5, "give a number of batches"),
        ("check_val_every_n_epoch", 1, "leave it out"),
        ("barebones", True, "leave it out"),
        ("enable_checkpointing", False, "checkpoint: null"),
        ("val_check_interval", -1, "lie in (0, 10,000,000,000]"),
        ("log_every_n_steps", -5, "lie in [0, "),
        ("accumulate_grad_batches", 0, "lie in [1, "),
        ("gradient_clip_val", float("nan"), "finite"),
        ("gradient_clip_val", -1.0, "0 or more"),
        ("max_steps", -2, "lie in [-1, "),
        # ... and what only Lightning knows
        ("limit_val_batches", 1.5, r"limit_val_batches"),
        ("gradient_clip_algorithm", "nonsense", "gradient_clip_algorithm"),
        ("strategy", "nonsense", "nonsense"),
        ("accelerator", "nonsense", "nonsense"),
        ("profiler", "nonsense", "profiler"),
        ("devices", 0, "devices"),
        ("fast_dev_run", -1, "fast_dev_run"),
        ("precision", "8", "precision"),
    ],
)
def test_one_sentence_and_no_run_folder(option, value, words, tmp_path, shards, vae_folder, capsys):
    file = write_fit(tmp_path / "c.yaml", shards, vae_folder, {option: value}, checkpoint={"every_n_images": 16})
    code, _, err = call(capsys, "fit", "-c", str(file))
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith(("error:", "Traceback"))]
    assert len(lines) == 1, err
    assert words in lines[0]
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.jsonl"))


def test_what_a_finite_set_may_have():
    """The control: shares of an epoch are fine where an epoch ends, whole numbers everywhere."""
    shares = Namespace(max_steps=2, val_check_interval=0.5, limit_train_batches=0.5, check_val_every_n_epoch=1)
    assert trainer_problems("fit", shares, PhantomImagesDataModule, []) == []
    assert trainer_problems("fit", shares, None, []) == []
    assert len(trainer_problems("fit", shares, LatentShardsDataModule, [])) == 3
    whole = Namespace(max_steps=2, val_check_interval=2, limit_train_batches=1.0, overfit_batches=0.0)
    assert trainer_problems("fit", whole, LatentShardsDataModule, [ModelCheckpoint]) == []
    unsaved = Namespace(max_steps=2, enable_checkpointing=False)
    assert trainer_problems("fit", unsaved, LatentShardsDataModule, [None]) == []
    assert trainer_problems("predict", Namespace(val_check_interval=0.5), LatentShardsDataModule, []) == []
