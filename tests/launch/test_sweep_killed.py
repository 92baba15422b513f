"""``lightning sweep`` as a process that is killed, told to stop, started twice, or finds the disk full."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.builders.sweeps import command, events, folders, lives, rows, starts, wait_for, write_sweep


def logged(file: Path, count: int, more_than: int = 1) -> bool:
    """Whether so many runs have logged more than some rows."""
    return len([one for one in folders(file) if len(rows(one)) > more_than]) >= count


def test_a_killed_runner_leaves_runs_that_the_next_one_adopts(tmp_path):
    """kill -9 of the runner alone: its two runs go on, the next runner waits for them, and nothing is started twice."""
    file = write_sweep(tmp_path, {"base": [1, 2, 3], "steps": 25, "pause": 0.1})
    first = command(file, "--jobs", "2")
    wait_for(lambda: logged(file, 2), "two runs")
    first.kill()
    first.wait()
    pids = [starts(folder)[0][0] for folder in folders(file)]
    assert all(map(lives, pids))
    second = command(file, "--jobs", "2")
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert said.count("still runs although its runner is gone") == 2
    assert [len(starts(folder)) for folder in folders(file)] == [1, 1, 1]
    assert all(rows(folder) == list(range(25)) for folder in folders(file))
    assert [one["number"] for one in events(file) if one["event"] == "started"] == [1, 2, 3]
    assert sorted(str(one["state"]) for one in events(file) if one["event"] == "ended") == ["finished"] * 3


def test_runner_and_run_killed_together_go_on_from_where_they_were(tmp_path):
    file = write_sweep(tmp_path, {"base": [1, 2], "steps": 25, "pause": 0.1})
    first = command(file, "--jobs", "2")
    wait_for(lambda: logged(file, 2, 3), "two runs")
    first.kill()
    first.wait()
    victim, other = folders(file)
    os.killpg(starts(victim)[0][0], signal.SIGKILL)
    said, _ = command(file, "--jobs", "2").communicate(timeout=120)
    assert [before for _, before in starts(victim)] == [0, 1], said
    assert [before for _, before in starts(other)] == [0]
    assert all(rows(folder) == list(range(25)) for folder in folders(file))


@pytest.mark.slow
def test_killed_again_and_again_it_draws_the_points_of_one_that_was_not(tmp_path):
    parameters: dict[str, object] = {"base": {"min": 0.0, "max": 9.0}, "steps": 4, "pause": 0.1}
    found = []
    for name, kills in (("whole", 0), ("broken", 2)):
        (tmp_path / name).mkdir()
        file = write_sweep(tmp_path / name, parameters, method="random", run_cap=4)
        for kill in range(kills):
            process = command(file, "--seed", "5")
            wait_for(lambda f=file, k=kill: logged(f, k + 1), "a run")  # type: ignore[misc]
            process.kill()
            process.wait()
        process = command(file)  # it knows its seed
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        if not kills:
            write_sweep(tmp_path / name, parameters, method="random", run_cap=4)
        found.append([one["parameters"] for one in events(file) if one["event"] == "started"])
    assert len(found[1]) == 4
    assert found[0] != found[1]  # seeds 0 and 5: the control
    (tmp_path / "same").mkdir()
    file = write_sweep(tmp_path / "same", parameters, method="random", run_cap=4)
    assert command(file, "--seed", "5", "--jobs", "4").communicate(timeout=120)
    assert [one["parameters"] for one in events(file) if one["event"] == "started"] == found[1]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_once_it_stops_its_runs_and_says_so(signum, code, tmp_path):
    file = write_sweep(tmp_path, {"base": [1, 2, 3], "steps": 16, "pause": 0.1})
    process = command(file, "--jobs", "2")
    wait_for(lambda: logged(file, 2), "two runs")
    process.send_signal(signum)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert not any(lives(pid) for folder in folders(file) for pid, _ in starts(folder))
    assert [one["state"] for one in events(file) if one["event"] == "ended"] == ["interrupted"] * 2
    process = command(file, "--jobs", "2")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert all(rows(folder) == list(range(16)) for folder in folders(file))
    assert [len(starts(folder)) for folder in folders(file)] == [2, 2, 1]


def test_two_runners_do_not_share_a_sweep(tmp_path):
    file = write_sweep(tmp_path, {"base": [1], "steps": 30, "pause": 0.1})
    first = command(file)
    wait_for(lambda: logged(file, 1), "a run")
    second = command(file)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "is being written by process" in said
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert len(starts(folders(file)[0])) == 1


def test_a_full_disk_starts_nothing_more_and_goes_on_when_there_is_room(tmp_path):
    """The size of a file is limited, which to a process is a full disk; tools/sweep_acceptance.py fills a real one."""
    file = write_sweep(tmp_path, {"fill": [10, 300_000, 20], "steps": 2})
    process = command(file, limit=100_000)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "found no room to write: make room, and the same command goes on from there" in said
    assert "Traceback" not in said
    assert len(folders(file)) == 2
    process = command(file)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert [len(starts(folder)) for folder in folders(file)] == [1, 2, 1]


def test_another_sweep_in_the_same_folder_is_refused(tmp_path):
    file = write_sweep(tmp_path, {"base": [1], "steps": 1})
    assert command(file).communicate(timeout=60)
    write_sweep(tmp_path, {"base": [1, 2], "steps": 1})
    process = command(file)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "holds a sweep with other parameters than" in said
    assert len(folders(file)) == 1


def test_a_hostile_name_makes_no_folder_elsewhere_and_acts_on_no_terminal(tmp_path):
    file = write_sweep(tmp_path, {"base": [1], "steps": 1}, name="../out")
    process = command(file)
    assert "leaves the folder of runs" in process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert not (tmp_path.parent / "out").exists()
    file = write_sweep(tmp_path, {"text": ["\x1b[2Jred", "=1+1"], "steps": 1}, name="a b;$(id)")
    process = command(file)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "\x1b" not in said
    assert "\\x1b[2Jred" in said
    (sweep,) = [one for one in tmp_path.iterdir() if one.is_dir()]
    assert sweep.name == "a b;$(id)"
    assert "\x1b" not in (sweep / "rows.csv").read_text()
    environment = json.loads(next(sweep.glob("0001-*/environment.json")).read_text())
    assert environment["WANDB_RUN_GROUP"].isprintable()
    assert "$" not in environment["WANDB_RUN_GROUP"]


def test_a_program_that_is_not_there_is_refused_before_a_folder_is_made(tmp_path):
    file = write_sweep(tmp_path, {"base": [1]}, command=["no-such-program", "${args}"])
    process = command(file)
    assert "there is no program 'no-such-program' here" in process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert not (tmp_path / "trial").exists()


def test_retry_failed_and_the_exit_code(tmp_path):
    there = tmp_path / "there"
    file = write_sweep(tmp_path, {"until": str(there), "steps": 1})
    process = command(file)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "exit code 3: not yet" in said
    there.touch()
    assert command(file, "--retry-failed").wait(timeout=60) == 0
