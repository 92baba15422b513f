"""Runs of the command on tiny models: their configs, started as processes or here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from meddiff.cli.main import dispatch
from tests.builders.tiny import UNET, model_config

ROOT = Path(__file__).parents[2]
STEPS = 14  # an epoch of the tiny shards is 5.6 steps, checkpoints come every 3


def write_config(
    folder: Path, shards: Path, vae: Path, ranks: int, workers: int, frozen: bool, **trainer: object
) -> Path:
    config = {
        "name": "resume",
        "runs": str(folder / "runs"),
        "seed_everything": 7,
        "trainer": {
            "accelerator": "cpu",
            "devices": ranks,
            "strategy": "ddp" if ranks > 1 else "auto",  # plain DDP: no find_unused_parameters
            "max_steps": STEPS,
            "val_check_interval": 4,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_images": 24}},
                {"class_path": "tests.builders.recorder.KeyRecorder"},
            ],
            **trainer,
        },
        # Dropout in the text-conditioned blocks makes the global generator matter.
        "model": {
            "class_path": "lightning_modules.LatentDiffusionModule",
            "init_args": model_config(vae, freeze_text_encoder=frozen, warmup_steps=5, unet=UNET | {"dropout": 0.1}),
        },
        "data": {
            "class_path": "datamodules.LatentShardsDataModule",
            "init_args": {"shards": str(shards), "batch_size": 8, "num_workers": workers},
        },
    }
    path = folder / "config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


def start(arguments: list[str], record: Path) -> subprocess.Popen[str]:
    # Without WANDB_SERVICE: a run killed while it shares this process's W&B service would stay "in use" there.
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    # The console script where it is installed: DDP starts its children with the name it was called by.
    script = Path(sys.executable).with_name("lightning")
    command = [str(script)] if script.is_file() else [sys.executable, "-m", "meddiff"]
    return subprocess.Popen(
        [*command, "fit", *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), "KEY_RECORD": str(record), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(arguments: list[str], record: Path, ranks: int) -> None:
    """Run to the end; one rank in this process, which spares the imports."""
    if ranks == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KEY_RECORD", str(record))
            assert dispatch(["fit", *arguments]) == 0
        return
    process = start(arguments, record)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
