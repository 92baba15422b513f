"""The report and the paper's tables on a machine that has neither torch nor Lightning: run to the end, not only imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.evaluation_folders import make_evaluation
from tests.builders.run_folders import make_run

ROOT = Path(__file__).parent.parent.parent

#: Ahead of everything else: what a machine without them says.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
COMMAND = """
from meddiff.cli.main import main
main(sys.argv[1:])
"""
HEAVY = ("torch", "torchvision", "lightning", "torchmetrics", "diffusers", "matplotlib", "pandas")


def run(arguments: list[str], absent: tuple[str, ...], what: str = COMMAND) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(absent=absent) + what
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["torch", "lightning.pytorch", "torchmetrics"])
def test_what_is_absent_cannot_be_imported(name):
    done = run([], HEAVY, f"import {name}")
    assert "ModuleNotFoundError: No module named" in done.stderr


def test_the_report_needs_none_of_them(tmp_path):
    runs = [make_run(tmp_path / side / "t", side, evaluations=2, overlays=2, samples=2) for side in ("one", "two")]
    done = run(["report", *map(str, runs), "--out", str(tmp_path / "page.html")], HEAVY)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The trade-off over training" in page
    assert page.count("data:image/png") > 3


def test_the_tables_need_none_of_them(tmp_path):
    runs = [make_evaluation(tmp_path / side / "t", side).parent.parent for side in ("frozen", "learnable")]
    # Two models, so that they are tested against each other: scipy, which looks for torch by itself, is asked, too.
    done = run(["tables", *map(str, runs), "--out", str(tmp_path / "paper")], HEAVY)
    assert done.returncode == 0, done.stderr
    assert "Paired tests on the same samples" in done.stdout
    assert len(list((tmp_path / "paper").iterdir())) >= 28
