"""Twelve trainings to which much happens (tools/sweep_acceptance.py), small: seven minutes on two cores that others share."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.children import ROOT, environment


@pytest.mark.slow
def test_eleven_finish_and_one_is_listed_with_its_reason(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "tools/sweep_acceptance.py", "--out", str(tmp_path / "out"), "--steps", "30"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as it should be" in done.stdout
    assert done.stdout.count("the runner was killed and started again") == 2
    assert "a training was killed" in done.stdout
    assert "the disk was full" in done.stdout
    print(done.stdout)
