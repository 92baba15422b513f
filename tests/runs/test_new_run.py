"""A run folder is made, not looked up: runs that begin together, jobs that begin again, processes side by side."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from meddiff.cli.side_by_side import exchange_between
from meddiff.common.errors import UserError
from meddiff.common.locks import Busy
from meddiff.runs.new_run import RUN_DIR_VARIABLE, run_folder
from tests.builders.command import ROOT

FIT = ["-c", "a.yaml"]
PATIENCE = 300
#: What each process of a run does before it trains: agree on a folder, and leave a file there.
AGREE = """
import os, sys, time
from pathlib import Path
from meddiff.cli.side_by_side import exchange_between
from meddiff.runs.new_run import run_folder
runs, arguments = sys.argv[1], sys.argv[2:]
with exchange_between(Path(runs) / "t", arguments, 60.0) as exchange:
    with run_folder(runs, "t", "fit", arguments, exchange) as folder:
        (folder / f"rank-{os.environ.get('RANK') or os.environ.get('SLURM_PROCID')}").touch()
        end = time.monotonic() + 60
        while len(list(folder.glob("rank-*"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (
        "SLURM_JOB_ID",
        "SLURM_RESTART_COUNT",
        "TORCHELASTIC_RUN_ID",
        "RANK",
        "SLURM_PROCID",
        RUN_DIR_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)


def begin(held: ExitStack, runs: Path, arguments: list[str] = FIT, verb: str = "fit") -> Path:
    """As one command does; the next one in this process is another command."""
    folder = held.enter_context(run_folder(str(runs), "t", verb, arguments, None))
    os.environ.pop(RUN_DIR_VARIABLE)
    return folder


@pytest.fixture
def held():
    with ExitStack() as stack:
        yield stack


def test_runs_of_one_second_have_a_folder_each(tmp_path, held, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-000000")
    folders = [begin(held, tmp_path) for _ in range(3)] + [begin(held, tmp_path, verb="test")]
    stem = "20260101-000000"
    assert [folder.name for folder in folders] == [stem, f"{stem}-2", f"{stem}-3", f"{stem}-test"]


def test_commands_of_one_job_have_a_folder_each(tmp_path, held, monkeypatch):
    for variable, job in (("SLURM_JOB_ID", "17"), ("TORCHELASTIC_RUN_ID", "abc")):
        monkeypatch.setenv(variable, job)
        assert [begin(held, tmp_path, [other]).name for other in ("a", "b", "b")] == [
            f"job-{job}", f"job-{job}-2", f"job-{job}-3",
        ]  # fmt: skip
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("count", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_job_that_begins_again_finds_its_folders(count, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with ExitStack() as before:
        first, second = begin(before, tmp_path, ["a"]), begin(before, tmp_path, ["b"])
        monkeypatch.setenv(count, "1")
    with ExitStack() as again:
        assert (begin(again, tmp_path, ["b"]), begin(again, tmp_path, ["a"])) == (second, first)
        assert begin(again, tmp_path, ["c"]).name == "job-17-3"


def test_a_run_that_goes_on_is_held_by_one_process(tmp_path, held, monkeypatch):
    """Two --resume of one run, or one of a run that still trains."""
    (tmp_path / "run").mkdir()
    code = """
from meddiff.runs.new_run import run_folder
with run_folder("runs", "t", "fit", [], None):
    print("held", flush=True)
    input()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, RUN_DIR_VARIABLE: str(tmp_path / "run"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    with pytest.raises(Busy, match=f"process {first.pid} .*lightning fit"):
        begin(held, tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "1")  # a child of the holder belongs to it
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    assert begin(held, tmp_path) == tmp_path / "run"
    monkeypatch.delenv("LOCAL_RANK")
    first.communicate("\n")
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    assert begin(held, tmp_path) == tmp_path / "run"


def test_a_run_without_anything_in_it_leaves_no_folder(tmp_path):
    with ExitStack() as stack:
        folder = begin(stack, tmp_path)
        assert folder.is_dir()
    assert not folder.exists()


def test_where_no_folder_can_be_made(tmp_path, held):
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="choose other --runs"):
        begin(held, tmp_path / "runs")


def test_torchrun_without_an_id_makes_one_folder(tmp_path):
    """Each of its processes looks at the clock by itself; the store that torchrun keeps tells them of one folder."""
    (tmp_path / "agree.py").write_text(AGREE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "agree.py"]
    for number in (1, 2):
        done = subprocess.run(
            [*command, str(tmp_path / "runs"), "x"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        folders = list((tmp_path / "runs" / "t").iterdir())
        assert len(folders) == number
        for folder in folders:
            assert {path.name for path in folder.glob("rank-*")} == {"rank-0", "rank-1"}


def test_processes_of_one_srun_make_one_folder(tmp_path):
    (tmp_path / "agree.py").write_text(AGREE)
    for number in (1, 2):  # two commands of one step, one after the other
        processes = [
            subprocess.Popen(
                [sys.executable, "agree.py", str(tmp_path / "runs"), "x"],
                cwd=tmp_path,
                env={
                    **os.environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0",
                    "SLURM_NTASKS": "2", "SLURM_PROCID": str(rank),
                },
            )
            for rank in (1, 0)
        ]  # fmt: skip
        assert [process.wait(timeout=PATIENCE) for process in processes] == [0, 0]
        folders = sorted((tmp_path / "runs" / "t").iterdir())
        assert [folder.name for folder in folders] == ["job-9", "job-9-2"][:number]
        for folder in folders:
            assert {path.name for path in folder.glob("rank-*")} == {"rank-0", "rank-1"}


def ask(parent: Path, patience_s: float) -> None:
    with exchange_between(parent, FIT, patience_s) as exchange:
        assert exchange is not None
        with pytest.raises(UserError, match="has not said"):
            exchange(None)


def test_a_first_process_that_never_says_is_told_after_a_while(tmp_path, monkeypatch):
    for name, value in (("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2"), ("SLURM_JOB_ID", "9")):
        monkeypatch.setenv(name, value)
    ask(tmp_path, 0.3)
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "9")
    ask(tmp_path, 1.0)
