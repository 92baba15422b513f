"""The debug configurations do what their first line says (minutes: they render phantoms with the shipped autoencoder)."""

import json
from pathlib import Path

import pytest

from meddiff.cli.main import dispatch

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """An empty folder: the suite's configs and assets are found from anywhere."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(clone: Path, name: str) -> list[float]:
    (metrics,) = (clone / "runs" / name).glob("*/metrics.jsonl")
    rows = map(json.loads, metrics.read_text().splitlines())
    return [row["train/loss"] for row in rows if "train/loss" in row]


def test_tiny_runs_the_whole_path(clone, capsys):
    assert dispatch(["fit", "-c", "configs/debug/tiny.yaml"]) == 0
    assert len(losses(clone, "tiny")) == 12
    (report,) = (clone / "runs" / "tiny").glob("*/report.html")
    assert "macro CNR" in report.read_text()
    assert f"look:   {report.relative_to(clone)}" in capsys.readouterr().out
    (table,) = (clone / "runs" / "tiny").glob("*/tradeoff.csv")
    assert len(table.read_text().splitlines()) == 1 + 3  # step 0, 6 and 12


def test_fast_dev_run_writes_no_run(clone):
    assert dispatch(["fit", "-c", "configs/debug/fast_dev_run.yaml"]) == 0
    assert not list((clone / "runs").rglob("*.ckpt"))


def test_overfit_learns_one_batch_by_heart(clone):
    assert dispatch(["fit", "-c", "configs/debug/overfit.yaml"]) == 0
    curve = losses(clone, "overfit")
    assert sum(curve[-5:]) / 5 < 0.4 * sum(curve[:2]) / 2  # 16 other images a step end at 0.75
