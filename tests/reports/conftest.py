"""A run, evaluated runs and their tables, made once."""

from pathlib import Path

import pytest

from meddiff.reports.paper.build import build_tables
from meddiff.reports.paper.cells import Table
from tests.builders.evaluation_folders import make_evaluation
from tests.builders.run_folders import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it; who changes it takes a copy."""
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart" / "20261121-085035")


@pytest.fixture(scope="session")
def evaluated_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three seeds of a frozen and of a learnable model, and both on other texts."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for side in ("frozen", "learnable"):
        for seed in range(3):
            found[f"{side}{seed}"] = folder / side / f"t{seed}"
            make_evaluation(found[f"{side}{seed}"], side, seed)
        for prompt in ("synthetic", "label"):
            found[f"{side}-{prompt}"] = folder / f"{side}-{prompt}" / "t"
            make_evaluation(found[f"{side}-{prompt}"], side, 0, prompt)
    return found


@pytest.fixture(scope="session")
def six_runs(evaluated_runs: dict[str, Path]) -> list[Path]:
    return [evaluated_runs[f"{side}{seed}"] for side in ("frozen", "learnable") for seed in range(3)]


@pytest.fixture(scope="session")
def paper_tables(six_runs: list[Path]) -> dict[str, Table]:
    return {table.name: table for table in build_tables(six_runs)}
