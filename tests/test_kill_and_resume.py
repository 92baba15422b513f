"""A training killed again and again, with a full disk and a cut file in between, ends as one that nobody stopped."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.builders.children import ROOT, environment
from tests.builders.command_runs import write_config


@pytest.mark.slow  # one kill is in test_resume.py
@pytest.mark.parametrize(("kills", "steps"), [(2, 60), (20, 1600)])
def test_killed_trainings_end_with_the_same_bits(kills: int, steps: int, tmp_path: Path, shards, vae_folder):
    config = write_config(tmp_path / "config", shards, vae_folder, 1, 0, True, max_steps=steps)
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"] = [{"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_images": 32}}]
    config.write_text(yaml.safe_dump(content))
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "tools/kill_and_resume.py", "-c", str(config), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--tmpdir", str(tmp_path / "tmp"), "--kills", str(kills), "--size", "3000" if kills > 2 else "600"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills" in done.stdout
    assert "bit-identical" in done.stdout
    print(done.stdout)
