"""What is said while a sweep runs and at its end: never silent for long, rate and time left, and rows.csv."""

import io
import json

from meddiff.launch import table
from meddiff.launch.runner import Runner
from meddiff.launch.table import LiveTable, final_list, write_rows
from meddiff.runs.tables import read_table
from tests.builders.sweeps import runner_of, write_sweep


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(runner: Runner, stream: io.StringIO) -> str:
    """Run it with the live table on ``stream``."""
    live = LiveTable(stream)
    shown_runner = Runner(runner.sweep, runner.plan, live)
    shown_runner.run()
    live.close()
    return stream.getvalue()


def test_the_interval_is_below_five_seconds():
    assert table.LIVE_S < table.FILE_S < 5


def test_a_file_gets_a_line_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "FILE_S", 0.3)
    metric = {"name": "score", "goal": "maximize"}
    file = write_sweep(tmp_path, {"base": [1, 2], "steps": 12, "pause": 0.1}, metric=metric)
    lines = shown(runner_of(file), io.StringIO()).splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("trial: ") for line in lines)
    assert "0 of 2 finished" in lines[0]
    assert any("1 of 2 finished" in line and "runs/h" in line and " left" in line for line in lines)
    assert "base=2" in lines[-1]
    assert any("score 1" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_run_says_how_far_it_is_and_the_sweep_how_long_it_takes(tmp_path, monkeypatch):
    """Before any run has ended the share of its steps tells; the control has no config.yaml and tells nothing."""
    monkeypatch.setattr(table, "FILE_S", 0.2)
    file = write_sweep(tmp_path, {"base": [1], "steps": 20, "pause": 0.1})
    before = [line for line in shown(runner_of(file), io.StringIO()).splitlines() if "0 of 1 finished" in line]
    assert len(before) > 2
    assert not any("runs/h" in line or " %" in line for line in before)
    (tmp_path / "known").mkdir()
    file = write_sweep(tmp_path / "known", {"base": [1], "steps": 20, "pause": 0.1})
    runner = runner_of(file)
    values = {"base": 1, "pause": 0.1, "steps": 20}
    runner.record.append("started", 1, parameters=values, folder="0001-00000000")
    folder = runner.plan.folder / "0001-00000000"
    folder.mkdir()
    (folder / "config.yaml").write_text("trainer: {max_steps: 20}\n")
    before = [line for line in shown(runner, io.StringIO()).splitlines() if "0 of 1 finished" in line]
    assert any("runs/h" in line and " %" in line for line in before)


def test_a_terminal_is_drawn_over_and_left_clean(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "LIVE_S", 0.2)
    file = write_sweep(tmp_path, {"text": ["\x1b[31mred"], "steps": 8, "pause": 0.1})
    said = shown(runner_of(file), Terminal())
    assert said.count("\x1b[2A\x1b[J") >= 2
    assert said.endswith("\x1b[2A\x1b[J")
    assert "\x1b[31m" not in said


def test_rows_and_list_say_what_became_of_each_run(tmp_path):
    metric = {"name": "score", "goal": "maximize"}
    file = write_sweep(tmp_path, {"base": [1e-5, 2], "fail": [0, 4], "steps": 3, "slope": -1}, metric=metric)
    runner = runner_of(file)
    runner.run()
    rows = read_table(write_rows(runner))
    first = ["number", "folder", "state", "reason", "base", "fail", "slope", "steps", "images", "score", "best score"]
    assert list(rows[0]) == first
    assert [row["state"] for row in rows] == ["finished", "failed", "finished", "failed"]
    assert [row["base"] for row in rows] == ["1e-05", "1e-05", "2", "2"]
    assert rows[1]["reason"] == "exit code 4: this one was told to fail"
    assert (float(rows[2]["score"]), float(rows[2]["best score"])) == (0.0, 2.0)
    assert rows[2]["images"] == "16"
    assert rows[1]["score"] == ""
    listed = "\n".join(final_list(runner))
    assert "finished    base=1e-05 fail=0  score -2" in listed
    assert "| error: this one was told to fail" in listed
    assert "steps=3" not in listed  # what does not vary


def test_known_figures_have_a_best_value_without_being_named(tmp_path):
    file = write_sweep(tmp_path, {"base": [1], "steps": 1})
    runner = runner_of(file)
    runner.run()
    metrics = runner.place(runner.record.runs[1]).run / "metrics.jsonl"
    rows = [
        {
            "step": 0,
            "images": 0,
            "grounding/macro_cnr": 0.9,
            "fidelity/fd_domain": 9.0,
            "grounding/atelectasis/cnr": 1.0,
        },
        {"step": 4, "images": 32, "grounding/macro_cnr": 0.5, "fidelity/fd_domain": 4.0, "train/loss": 0.1},
        {"step": 5, "images": 40, "grounding/macro_cnr": None, "throughput/mfu": 0.3},
    ]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = read_table(write_rows(runner))
    assert (row["grounding/macro_cnr"], row["best grounding/macro_cnr"]) == ("0.5", "0.9")
    assert (row["fidelity/fd_domain"], row["best fidelity/fd_domain"]) == ("4", "4")
    assert not {"grounding/atelectasis/cnr", "train/loss", "throughput/mfu"} & set(row)
