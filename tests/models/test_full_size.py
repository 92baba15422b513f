"""Stable Diffusion 2's own size: written, read, grounded and trained within 20 GiB, so a laptop's CPU can look at one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 20.0  # GiB


@pytest.mark.slow
def test_a_model_of_stable_diffusions_size_fits_into_20_gib(tmp_path: Path) -> None:
    found: dict[str, dict[str, object]] = {}
    for stage in ("write", "ground_file", "ground_folder", "train_file", "train_folder"):
        command = [sys.executable, "-m", "tests.builders.full_size", stage, str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found[stage] = json.loads(done.stdout.splitlines()[-1])
        print(stage, found[stage])
        assert float(str(found[stage]["peak"])) < LIMIT
    assert found["write"]["unet"] == 865_910_724
    assert found["ground_file"]["digest"] == found["ground_folder"]["digest"]
    assert found["ground_file"]["finite"]
    assert found["ground_folder"]["finite"]
    for stage in ("train_file", "train_folder"):
        assert found[stage]["steps"] == 1
        # one image, one timestep; weights at random predict nothing of the noise
        assert 0.1 < float(str(found[stage]["loss"])) < 10
