"""tools/visual_analysis_results.py: rows of explained runs, and the page out of the rows."""

import sys
from pathlib import Path

import pytest

from meddiff.runs.tables import read_table, write_table
from tests.builders.run_folders import make_run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import visual_analysis_results as tool  # noqa: E402

PAGE = "by hand\n<!-- made: answer -->\nold\n<!-- end -->\nalso by hand\n<!-- made: gain -->\n<!-- end -->\n"


def explained(folder: Path, encoder: str, seed: int) -> Path:
    """A run whose attention gains at timestep 381 alone, by 1 and a tenth of its seed."""
    run = make_run(folder / encoder / f"t{seed}", encoder, frozen=encoder == "frozen", seed=seed, overlays=0, samples=0)
    out = run / "evaluation" / "000016000"
    out.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for step, gain in ((741, 0.0), (381, 1.0 + seed / 10)):
        for figure, layer in (("gain/absent", "all"), ("gain/absent", "mid_block"), ("auroc", "all")):
            row = {"tool": "attention", "layer": layer, "class": "all", "timestep": step, "figure": figure}
            rows.append({**row, "images": 16000, "value": gain, "low": gain - 0.5, "high": gain + 0.5, "n": 9})
    write_table(out / "saliency.csv", rows)
    return run


def test_the_page_says_what_the_rows_say_and_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    runs = [explained(tmp_path, "frozen", seed) for seed in range(5)] + [explained(tmp_path, "learnable", 0)]
    rows, page = tmp_path / "rows.csv", tmp_path / "page.md"
    page.write_text(PAGE)
    assert tool.main(["collect", *map(str, runs), "--rows", str(rows)]) == 0
    assert {(row["figure"], row["encoder"]) for row in read_table(rows)} == {
        ("gain/absent", "frozen"), ("gain/absent", "learnable"),
    }  # fmt: skip
    assert len(read_table(rows)) == 6 * 2
    assert tool.main(["page", "--rows", str(rows), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("by hand\n<!-- made: answer -->\n")
    assert "also by hand" in text
    assert "old" not in text
    assert "5 runs: attention gains most at timestep 381 (1.20 [1.00, 1.40])" in text
    assert "by timestep: 741: 0, 381: 5." in text
    assert "| frozen, impression | attention | 0.00 | 1.20 [1.00, 1.40] |" in text
    assert "| learnable, impression | attention | 0.00 | 1.00 |" in text  # of one seed there is no interval


def test_without_rows_nothing_is_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert tool.main(["page", "--rows", str(tmp_path / "none.csv"), "--page", str(page)]) == 0
    assert "nothing is claimed" in page.read_text()
    plain = make_run(tmp_path / "plain" / "t", "plain", frozen=True, overlays=0, samples=0)
    assert tool.main(["collect", str(plain), "--rows", str(tmp_path / "rows.csv")]) == 2
    assert "None of these runs was explained" in capsys.readouterr().err
    assert not (tmp_path / "rows.csv").exists()


def test_rows_of_other_runs_stay_and_lengths_are_told_apart(tmp_path: Path) -> None:
    rows, page = tmp_path / "rows.csv", tmp_path / "page.md"
    page.write_text(PAGE)
    runs = [explained(tmp_path, "frozen", seed) for seed in range(5)]
    assert tool.main(["collect", *map(str, runs[:3]), "--rows", str(rows)]) == 0
    assert tool.main(["collect", *map(str, runs[2:]), "--rows", str(rows)]) == 0
    assert len(read_table(rows)) == 5 * 2, "the third run's rows once"
    assert tool.main(["page", "--rows", str(rows), "--page", str(page)]) == 0
    assert "| frozen, impression | attention | 0.00 | 1.20 [1.00, 1.40] |" in page.read_text()
    longer = [{**row, "images": "120000", "value": "9"} for row in read_table(rows) if row["seed"] == "0"]
    write_table(rows, [*read_table(rows), *longer])
    assert tool.main(["page", "--rows", str(rows), "--page", str(page)]) == 0
    text = page.read_text()
    assert "| frozen, impression, 16,000 images | attention | 0.00 | 1.20 [1.00, 1.40] |" in text
    assert "| frozen, impression, 120,000 images | attention | 9.00 | 9.00 |" in text


def test_games_are_told_less_a_random_order_of_the_same_run_and_timestep(tmp_path: Path) -> None:
    rows, page = tmp_path / "rows.csv", tmp_path / "page.md"
    page.write_text("<!-- made: games -->\n<!-- end -->\n")
    runs = [explained(tmp_path, "frozen", seed) for seed in range(5)]
    for seed, run in enumerate(runs):
        played: list[dict[str, object]] = []
        for step in (741, 381):  # runs and timesteps differ by far more than maps do
            level = 10.0 * seed + step
            for name, gap in (("random", 0.0), ("df_rise", 0.2 + seed / 100), ("centre", 0.0)):
                for game, sign in (("deletion", 1), ("insertion", -1)):
                    row = {"tool": name, "timestep": step, "game": game, "n": 2}
                    played += [
                        {**row, "taken": "area", "value": level + sign * gap},
                        {**row, "taken": 0.5, "value": 99},
                    ]
        write_table(run / "evaluation" / "000016000" / "saliency_games.csv", played)
    assert tool.main(["collect", *map(str, runs), "--rows", str(rows)]) == 0
    assert tool.main(["page", "--rows", str(rows), "--page", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert any("| 0.220 [0.200, 0.240] | -0.220 [-0.240, -0.200] |" in line for line in lines), lines
    assert any(line.replace("-0.000", "0.000").endswith("| 0.000 | 0.000 |") for line in lines), lines
    assert not any("random |" in line for line in lines[3:])


def test_lists_of_timesteps_are_compared_by_seed(tmp_path: Path) -> None:
    """Runs differ by ten, lists by one: the difference has no spread but that of the lists."""
    runs = []
    for seed in range(5):
        run = make_run(tmp_path / f"t{seed}", "frozen", frozen=True, seed=seed, overlays=0, samples=0)
        out = run / "evaluation" / "000016000"
        out.mkdir(parents=True)
        row = {"gamma": "", "steps": 30, "n": 100, "phrases": 9, "cnr": 1.5, "gain_absent": 0.5}
        early = {**row, "schedule": "exponential_early", "gamma": 60, "fd_domain": 10 * seed + 1 + 0.1 * seed}
        real = {"schedule": "real_vs_real", "fd_domain": 3.5, "n": 100}
        write_table(out / "schedules.csv", [early, {**row, "schedule": "uniform", "fd_domain": 10 * seed}, real])
        runs.append(run)
    rows, page = tmp_path / "rows.csv", tmp_path / "page.md"
    page.write_text("<!-- made: schedules -->\n<!-- end -->\n")
    assert tool.main(["collect", *map(str, runs), "--rows", str(rows)]) == 0
    assert not rows.exists()  # none of them was explained, and rows of others stay
    assert tool.main(["page", "--rows", str(rows), "--page", str(page)]) == 0
    uniform, exponential, reals = page.read_text().splitlines()[3:6]
    assert uniform.startswith("| frozen, impression | uniform |  | 30 | 20.0 [0.4, 39.6] |  | 1.50 | 0.50 |")
    assert exponential.startswith(
        "| frozen, impression | exponential, early | 60 | 30 | 21.2 [1.4, 41.0] | 1.2 [1.0, 1.4] |"
    )
    assert reals == "| frozen, impression | real against real |  |  | 3.5 |  |  |  |"


def test_the_page_of_the_repository_is_made_of_its_rows(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(tool.PAGE.read_text())
    tool.page(tool.ROWS, copy)
    assert copy.read_text() == tool.PAGE.read_text()
