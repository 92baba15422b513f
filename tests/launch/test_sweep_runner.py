"""The runner on real children: what finishes, fails, is cut off, stopped, goes on. tests/builders/sweep_child.py is a run."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from meddiff.common.errors import UserError
from meddiff.common.processes import started
from meddiff.launch import job
from meddiff.launch.record import Record
from tests.builders.sweeps import CHILD, events, folders, lives, rows, runner_of, starts, states, wait_for, write_sweep


def test_a_grid_runs_to_its_end_and_a_failed_run_stops_no_other(tmp_path):
    file = write_sweep(tmp_path, {"base": [1, 2], "fail": [0, 4]})
    runner = runner_of(file, jobs=2)
    runner.run()
    assert states(runner) == ["finished", "failed", "finished", "failed"]
    assert [one.values for one in runner.record.runs.values()] == [
        {"base": base, "fail": fail} for base in (1, 2) for fail in (0, 4)
    ]
    failed = runner.record.runs[2]
    assert failed.reason == "exit code 4: this one was told to fail"
    assert failed.last_lines[-1] == "error: this one was told to fail"
    assert [len(starts(folder)) for folder in folders(file)] == [1, 1, 1, 1]
    assert rows(folders(file)[0]) == [0, 1, 2]
    # nothing is left to do, also for another runner
    again = runner_of(file)
    again.run()
    assert states(again) == states(runner)
    assert [len(starts(folder)) for folder in folders(file)] == [1, 1, 1, 1]


def test_a_child_gets_its_words_environment_and_parameter_file(tmp_path):
    hostile = "a b; touch x\n\x1b[2J '\"$(id)"
    file = write_sweep(tmp_path, {"base": 1, "text": hostile, "steps": 1})
    runner = runner_of(file, jobs=3)
    runner.run()
    (folder,) = folders(file)
    found = json.loads((folder / "environment.json").read_text())
    assert found["OMP_NUM_THREADS"] == "1"  # this process has one; of four cores three jobs would have one, too
    assert found["MEDDIFF_RUN_DIR"] == str(folder)
    assert found["WANDB_RUN_GROUP"] == "sweep-trial-beef0001"
    assert "WANDB_SWEEP_ID" not in found
    log = (tmp_path / "trial" / "jobs" / f"{folder.name}.log").read_text()
    assert repr(hostile) in log  # as it was written, through no shell
    assert not (tmp_path / "x").exists()
    assert found["WANDB_SWEEP_PARAM_PATH"] == str(tmp_path / "trial" / "jobs" / f"{folder.name}.yaml")


def test_an_exit_code_of_0_is_not_success(tmp_path):
    """... which would have been three finished runs; the control leaves its mark."""
    file = write_sweep(tmp_path, {"unmarked": [0, 1], "steps": 1})
    runner = runner_of(file)
    runner.run()
    assert states(runner) == ["finished", "failed"]
    assert runner.record.runs[2].reason == "exit code 0, but no finished.json, 3 times"
    assert [before for _, before in starts(folders(file)[1])] == [0, 1, 2]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_from_outside_goes_on(signum, tmp_path):
    file = write_sweep(tmp_path, {"steps": 12, "pause": 0.1})
    runner = runner_of(file)

    def strike() -> None:
        wait_for(lambda: len(folders(file)) == 1 and len(rows(folders(file)[0])) > 2, "rows")
        os.kill(starts(folders(file)[0])[0][0], signum)

    threading.Thread(target=strike).start()
    runner.run()
    assert states(runner) == ["finished"]
    assert [before for _, before in starts(folders(file)[0])] == [0, 1]
    assert rows(folders(file)[0]) == list(range(12))
    ends = [one["state"] for one in events(file) if one["event"] == "ended"]
    assert ends == ["interrupted", "finished"]


def test_a_failed_run_is_tried_again_only_when_it_is_asked_for(tmp_path):
    there = tmp_path / "there"
    file = write_sweep(tmp_path, {"until": str(there), "steps": 1})
    first = runner_of(file)
    first.run()
    there.touch()
    second = runner_of(file)
    second.run()
    third = runner_of(file, retry_failed=True)
    third.run()
    assert (states(first), states(second), states(third)) == (["failed"], ["failed"], ["finished"])
    assert len(starts(folders(file)[0])) == 2


def write_two(tmp_path, goal):
    """A sweep of two runs that stay at 5 and at 1, under hyperband."""
    rule = {"type": "hyperband", "min_iter": 3, "eta": 3, "strict": True}
    metric = {"name": "score", "goal": goal}
    parameters = {"base": [5, 1], "steps": 60, "pause": 0.05, "slope": 0}
    return write_sweep(tmp_path, parameters, metric=metric, early_terminate=rule)


def test_hyperband_stops_the_worse_of_two(tmp_path):
    file = write_two(tmp_path, "minimize")
    runner = runner_of(file, jobs=2)
    runner.run()
    assert states(runner) == ["stopped", "finished"]
    assert re.fullmatch(r"score was 5 at value (3|9|27), behind 1", runner.record.runs[1].reason)
    assert len(rows(folders(file)[0])) < 60
    assert len(rows(folders(file)[1])) == 60
    # a stopped run stays stopped
    again = runner_of(file, jobs=2)
    again.run()
    assert [len(starts(folder)) for folder in folders(file)] == [1, 1]


def test_maximize_stops_the_other_one(tmp_path):
    runner = runner_of(write_two(tmp_path, "maximize"), jobs=2)
    runner.run()
    assert states(runner) == ["finished", "stopped"]


def test_target_and_run_cap_end_a_sweep(tmp_path):
    metric = {"name": "score", "goal": "maximize", "target": 10}
    file = write_sweep(tmp_path, {"base": [1, 10, 11], "steps": 15, "pause": 0.1, "slope": 0}, metric=metric)
    runner = runner_of(file)
    runner.run()
    assert states(runner) == ["finished", "finished"]
    (tmp_path / "capped").mkdir()
    file = write_sweep(tmp_path / "capped", {"base": [1, 2, 3], "steps": 1}, run_cap=2)
    runner = runner_of(file)
    runner.run()
    assert states(runner) == ["finished", "finished"]
    assert runner.total == 2


def test_a_metric_that_no_run_logs_is_said_after_the_first(tmp_path):
    metric = {"name": "scroe", "goal": "maximize", "target": 10}
    file = write_sweep(tmp_path, {"base": [1, 2, 3], "steps": 1}, metric=metric)
    with pytest.raises(UserError, match="has no value of scroe"):
        runner_of(file).run()
    assert len(folders(file)) == 1
    write_sweep(tmp_path, {"base": [1, 2, 3], "steps": 1}, metric={"name": "score", "target": -1})
    runner = runner_of(file)
    runner.run()
    assert states(runner) == ["finished"] * 3


def test_random_is_the_same_after_a_stop_in_the_middle(tmp_path):
    parameters: dict[str, object] = {"base": {"min": 0.0, "max": 9.0}, "steps": {"values": [1, 2, 3]}}
    found = []
    for name, caps in (("whole", (5,)), ("broken", (2, 3, 5))):
        (tmp_path / name).mkdir()
        for cap in caps:
            file = write_sweep(tmp_path / name, parameters, method="random", run_cap=cap)
            runner = runner_of(file, jobs=2 if name == "whole" else 1, seed=3)
            runner.run()
        found.append([one.values for one in runner.record.runs.values()])
    assert found[0] == found[1]
    assert len({json.dumps(values) for values in found[0]}) == 5


def test_a_record_with_a_torn_last_line_is_read_and_written_on(tmp_path):
    file = write_sweep(tmp_path, {"base": [1, 2], "steps": 1}, run_cap=1)
    runner_of(file).run()
    record = tmp_path / "trial" / "runs.jsonl"
    whole = record.read_text()
    record.write_text(whole + '{"event": "started", "number": 2, "parame')
    file = write_sweep(tmp_path, {"base": [1, 2], "steps": 1})
    runner = runner_of(file)
    runner.run()
    assert states(runner) == ["finished", "finished"]
    assert record.read_text().startswith(whole)
    assert [one["number"] for one in events(file)] == [1, 1, 1, 2, 2, 2]  # every line is one


@pytest.mark.parametrize("name", ["../out", "0001-abc/../..", "/etc", "x"])
def test_a_record_cannot_lead_out_of_the_sweep(name, tmp_path):
    line = {"event": "started", "number": 1, "parameters": {}, "folder": name}
    (tmp_path / "runs.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="no folder of a sweep's run"):
        Record(tmp_path)


def test_a_record_without_room_loses_no_line_and_gains_no_half_one(tmp_path):
    import resource

    record = Record(tmp_path)
    record.append("started", 1, parameters={"a": 1}, folder="0001-00000000")
    before = record.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            record.append("ended", 1, state="finished", reason="", last_lines=[])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert record.path.read_bytes() == before
    assert record.runs[1].state == "running"
    record.append("ended", 1, state="finished", reason="", last_lines=[])
    assert Record(tmp_path).runs[1].state == "finished"


def test_a_run_that_heeds_no_sigterm_is_killed_and_goes_on_later(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "GRACE_S", 0.5)
    file = write_sweep(tmp_path, {"deaf": 1, "steps": 20, "pause": 0.1})
    runner = runner_of(file)

    def strike() -> None:
        wait_for(lambda: len(folders(file)) == 1 and len(rows(folders(file)[0])) > 2, "rows")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=strike).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert states(runner) == ["interrupted"]
    ((pid, _),) = starts(folders(file)[0])
    assert not lives(pid)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as before
    runner = runner_of(file)
    runner.run()
    assert states(runner) == ["finished"]
    assert rows(folders(file)[0]) == list(range(20))


def test_a_run_that_gets_further_each_time_may_be_cut_off_often(tmp_path):
    file = write_sweep(tmp_path, {"steps": 25, "pause": 0.1})
    runner = runner_of(file)

    def strike() -> None:
        for times in range(1, 5):
            wait_for(lambda t=times: len(folders(file)) == 1 and len(starts(folders(file)[0])) == t, "a start")  # type: ignore[misc]
            before = len(rows(folders(file)[0]))
            wait_for(lambda b=before: len(rows(folders(file)[0])) > b + 1, "rows")  # type: ignore[misc]
            os.kill(starts(folders(file)[0])[-1][0], signal.SIGKILL)

    threading.Thread(target=strike).start()
    runner.run()
    assert states(runner) == ["finished"]
    assert len(starts(folders(file)[0])) == 5
    assert rows(folders(file)[0]) == list(range(25))


def test_an_orphan_that_was_to_be_stopped_is_told(tmp_path):
    """The runner was killed between its note that hyperband stops the run and the signal."""
    rule = {"type": "hyperband", "min_iter": 99}
    file = write_sweep(tmp_path, {"steps": 5000, "pause": 0.1}, metric={"name": "score"}, early_terminate=rule)
    runner = runner_of(file)
    values, place = {"pause": 0.1, "steps": 5000}, job.Place(tmp_path / "trial", "0001-00000000")
    (tmp_path / "trial" / "jobs").mkdir()
    lock = job.take_lock(place.lock)
    assert lock is not None
    words = [sys.executable, str(CHILD), "--steps=5000", "--pause=0.1"]
    orphan = job.launch(words, {**os.environ, "MEDDIFF_RUN_DIR": str(place.run)}, place, lock)
    os.close(lock)
    runner.record.append("started", 1, parameters=values, folder=place.folder)
    runner.record.append("process", 1, pid=orphan.pid, began=started(orphan.pid))
    runner.record.append("stop", 1, reason="it was the worst")
    second = runner_of(file)
    second.run()
    assert (states(second), second.record.runs[1].reason) == (["stopped"], "it was the worst")
    assert orphan.wait() == -signal.SIGTERM


def test_told_again_it_waits_for_nothing(tmp_path, monkeypatch):
    """The run heeds no SIGTERM and the half minute is endless here: only the second signal can end it."""
    monkeypatch.setattr(job, "GRACE_S", 1e9)
    file = write_sweep(tmp_path, {"deaf": 1, "steps": 10_000, "pause": 0.1})
    runner = runner_of(file)

    def strike() -> None:
        wait_for(lambda: len(folders(file)) == 1 and len(rows(folders(file)[0])) > 1, "rows")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2.2)  # sooner it would be the same request
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=strike).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert states(runner) == ["interrupted"]
    assert not lives(starts(folders(file)[0])[0][0])


def test_a_number_that_another_process_has_now_is_left_alone(tmp_path):
    """A pid comes again: what was recorded with another birth is not ours to signal."""
    stranger = subprocess.Popen(["sleep", "60"], process_group=0)
    try:
        record = Record(tmp_path)
        record.append("started", 1, parameters={}, folder="0001-00000000")
        record.append("process", 1, pid=stranger.pid, began="another boot:1")
        one = job.Job(record.runs[1], job.Place(tmp_path, "0001-00000000"))
        one.ask_to_stop()
        one.kill()
        time.sleep(0.3)
        assert stranger.poll() is None
        assert one.ended()
    finally:
        stranger.kill()
        stranger.wait()


def test_the_reason_is_found_behind_a_bar(tmp_path):
    """A bar is drawn over itself, and what refuses may stand on its line; only the last state of it is a line."""
    log = tmp_path / "log"
    bar = "\r".join(f"train {at} % [00:0{at}<00:10]" for at in range(9))
    log.write_text("begins\n" + bar + "error: No more images: add some.\n" + "train 8 % [end]\n\n")
    assert job.last_lines(log) == [
        "begins",
        "train 8 % [00:08<00:10]",
        "error: No more images: add some.",
        "train 8 % [end]",
    ]
    assert job.told(job.last_lines(log)) == "No more images: add some."
    log.write_text("x\n" * 99 + "Traceback\nValueError: 3\n")
    assert len(job.last_lines(log)) == job.LINES
    assert job.told(job.last_lines(log)) == "ValueError: 3"
    assert job.told(job.last_lines(tmp_path / "none")) == ""
