"""Folders from before a measurement was renamed are read as if they were of today, and written on under one name."""

import json
from pathlib import Path

import pytest

from meddiff.reports.page.tables import Tables
from meddiff.reports.paper.build import build_tables
from meddiff.runs.evaluation_folder import read_evaluation
from meddiff.runs.evaluations import EvaluationWriter
from meddiff.runs.folder import Run, read_run
from meddiff.runs.metrics_file import read_metrics
from meddiff.runs.tables import read_table, update_controls, write_table
from tests.builders.earlier_folders import age
from tests.builders.evaluation_folders import make_evaluation
from tests.builders.run_folders import make_run

NOW, EARLIER = "fidelity/fd_domain", "fid_domain"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run as it would be written today, and as it was."""
    folder = tmp_path_factory.mktemp("runs")
    return tuple(make_run(folder / name / "t", overlays=1, samples=1, size=32) for name in ("new", "old"))  # type: ignore[return-value]


def test_old_and_new_runs_lie_on_one_curve(runs: tuple[Path, Path]) -> None:
    new, old = read_run(runs[0]), read_run(age(runs[1]))
    assert EARLIER in (runs[1] / "tradeoff.csv").read_text()
    assert EARLIER in (runs[1] / "controls.json").read_text()
    assert Tables([new, old]).distances == [NOW, "fidelity/kid_domain"]
    assert [value for _, value in old.series(NOW)] == [value for _, value in new.series(NOW)]
    assert len(old.series(NOW)) == 5
    assert not old.series(f"fidelity/{EARLIER}")
    assert (
        old.control("fidelity", "fd_domain", "real_vs_real")
        == new.control("fidelity", "fd_domain", "real_vs_real")
        == 3.1
    )
    # control: a name that nobody ever changed is left alone
    assert old.series("fidelity/kid_domain") == new.series("fidelity/kid_domain")


def test_a_run_without_a_table_is_read_from_its_rows(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "images": 0, f"fidelity/{EARLIER}": 80.0},
        {"step": 9, "images": 144, NOW: None},
        {"step": 18, "images": 288, NOW: 20.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [value for _, value in Run(tmp_path).series(NOW)] == [80.0, 20.0]
    assert read_metrics(tmp_path / "metrics.jsonl")[1][NOW] is None


@pytest.mark.parametrize("order", [(EARLIER, "fd_domain"), ("fd_domain", EARLIER)])
def test_of_two_columns_the_one_of_today_counts_where_it_has_a_value(tmp_path: Path, order: tuple[str, str]) -> None:
    cells = {EARLIER: ["90", "80", ""], "fd_domain": ["", "70", "60"]}
    lines = [f"{i},{cells[order[0]][i]},{cells[order[1]][i]}" for i in range(3)]
    (tmp_path / "tradeoff.csv").write_text(
        "\n".join([f"images,fidelity/{order[0]},fidelity/{order[1]}", *lines]) + "\n"
    )
    rows = read_table(tmp_path / "tradeoff.csv")
    assert [row[NOW] for row in rows] == ["90", "70", "60"]
    write_table(tmp_path / "tradeoff.csv", rows)
    assert EARLIER not in (tmp_path / "tradeoff.csv").read_text()


def test_an_evaluation_of_earlier_days_fills_the_tables_of_today(tmp_path: Path) -> None:
    out = make_evaluation(tmp_path / "old" / "t")
    make_evaluation(tmp_path / "new" / "t")
    age(tmp_path / "old")
    assert EARLIER in (out / "fidelity.csv").read_text()
    old, new = (read_evaluation(tmp_path / name / "t") for name in ("old", "new"))
    assert old.table("fidelity") == new.table("fidelity")
    of_old, of_new = (
        {
            str(row[0].value): row[2].value
            for row in next(t for t in build_tables([tmp_path / n / "t"]) if t.name == "table4").rows
        }
        for n in ("old", "new")
    )
    assert of_old == of_new
    assert of_old["FD, domain classifier"] is not None


def test_measured_again_there_is_one_name(tmp_path: Path) -> None:
    (tmp_path / "controls.json").write_text(json.dumps({"fidelity": {"n": 5, EARLIER: {"noise": 9.0}}}))
    update_controls(tmp_path, "fidelity", {"fd_domain": {"noise": 8.0}})
    assert json.loads((tmp_path / "controls.json").read_text()) == {"fidelity": {"n": 5, "fd_domain": {"noise": 8.0}}}
    (tmp_path / "summary.json").write_text(json.dumps({"fidelity": {EARLIER: 7.0}}))
    EvaluationWriter(tmp_path, {"model": "m"}).part("grounding", {}, {"cnr": 1.0})
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "fidelity": {"fd_domain": 7.0},
        "grounding": {"cnr": 1.0},
    }
