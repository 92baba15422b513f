"""``lightning ARGUMENTS`` as a user types it: in this process, or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from meddiff.cli.main import main
from tests.builders.tiny import model_config

ROOT = Path(__file__).parents[2]
#: Nothing here takes a minute on two quiet cores; a machine that does much else must not fail a test.
PATIENCE = 600
#: One Lightning process of `prepare`: this one.
HERE = ("--resolution", "64", "--accelerator", "cpu", "--devices", "1")


def exit_code(*arguments: str) -> int:
    """What ``lightning ARGUMENTS`` returns to the shell."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``lightning ARGUMENTS`` in this process."""
    code = exit_code(*arguments)
    out, err = capsys.readouterr()
    return code, out, err


def child(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``lightning ARGUMENTS`` in a process of its own that starts in ``folder``, imports included."""
    return subprocess.run(
        [sys.executable, "-m", "meddiff", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def write_fit(
    file: Path, shards: Path, vae: Path, trainer: dict[str, Any] | None = None, **top: dict[str, Any] | None
) -> Path:
    """A config of four steps of 8 images with runs below ``file``'s folder, named t; returns ``file``.

    Args:
        trainer: options of the trainer beside those.
        top: further sections, e.g. ``checkpoint={"every_n_images": 16}``.
    """
    content = {
        "name": "t",
        "runs": str(file.parent / "runs"),
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 4,
            "val_check_interval": 2,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **(trainer or {}),
        },
        "model": {"class_path": "lightning_modules.LatentDiffusionModule", "init_args": model_config(vae)},
        "data": {
            "class_path": "datamodules.LatentShardsDataModule",
            "init_args": {"shards": str(shards), "batch_size": 8},
        },
        **top,
    }
    file.write_text(yaml.safe_dump(content))
    return file
