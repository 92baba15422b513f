"""Many commands started in one moment: a folder for each training, one cohort, no error (tools/at_once.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.command import ROOT


#: Two trainings that want one cohort; a `prepare` that waits for another's is in cli/test_two_commands.py.
@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(2, 0, 0), (16, 4, 2)], ids=lambda one: "-".join(map(str, one)))
def test_commands_at_once(numbers: tuple[int, int, int], tmp_path: Path):
    trainings, evaluations, prepares = map(str, numbers)
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "tools" / "at_once.py"), "--folder", str(tmp_path / "f"),
            "--trainings", trainings, "--evaluations", evaluations, "--prepares", prepares,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"trainings {trainings}: {trainings} folders, {trainings} with one run's rows" in done.stdout
