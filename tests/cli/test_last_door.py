"""The last door: what others raise is a sentence and 2, a fault of ours a line, a report and 70; a traceback if asked for."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meddiff.cli import main as command
from meddiff.cli.last_door import VARIABLE, last_door
from meddiff.runs.new_run import RUN_DIR_VARIABLE
from tests.builders.command import ROOT, call
from tests.builders.failing_verb import SECRET


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The verb fails; reports go to the folder that comes back."""
    monkeypatch.setitem(command.OWN_VERBS, "report", ("tests.builders.failing_verb", "fails"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(RUN_DIR_VARIABLE, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("disk", "shards/0.tar: Input/output error"),
        ("permission", r"/secret\x1b[2J: Permission denied"),
        ("long", "cannot be a path here"),
        ("lightning", "No such strategy: `warp`."),
        ("torch", "mat1 and mat2 shapes cannot be multiplied"),
        ("worker", "exited unexpectedly"),
        ("memory", "MemoryError"),
        ("user", "it can be mended"),
    ],
)
def test_what_others_refuse_is_their_last_sentence(
    kind: str, told: str, planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "report", kind)
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(planted.iterdir())


@pytest.mark.parametrize("kind", ["fault", "caused"])
def test_a_fault_of_ours_leaves_a_report_without_what_a_cohort_holds(
    kind: str, planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "report", kind)
    assert (code, out) == (70, "")
    assert err.count("\n") == 1
    name = {"fault": "AttributeError", "caused": "KeyError"}[kind]
    assert re.match(rf"error: a fault of this suite \({name} at ranges\.py:\d+\)|error: a fault .*{name}", err)
    report = next(planted.iterdir())
    assert str(report) in err
    text = report.read_text()
    assert f"command: lightning report {kind}" in text
    assert "range_problems" in text  # also where it is only the cause
    assert "torch " in text
    assert SECRET not in text
    assert not re.search(r"\d{8}", text)


def test_a_report_lies_in_the_run_folder_where_there_is_one(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = planted / "runs" / "a"
    run.mkdir(parents=True)
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(run))
    assert call(capsys, "report", "fault")[0] == 70
    assert [file.name for file in run.iterdir()] == [f"fault-{os.getpid()}.txt"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_traceback_is_printed_where_it_is_asked_for(
    at: int, planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    arguments = ["report", "disk"]
    arguments.insert(at, "--traceback")
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1] == "error: shards/0.tar: Input/output error"


def test_a_pipe_that_nobody_reads_is_no_riddle() -> None:
    """As ``lightning --help | head -0``."""
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "meddiff", "--help"]
    done = subprocess.run(
        arguments, stdout=writer, stderr=subprocess.PIPE, text=True, env=env, timeout=120, check=False
    )
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE, "as of other tools, which the system ends"
    assert done.stderr == ""


def test_a_pipe_that_breaks_elsewhere_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """The control: to a process that is gone, while the output is read."""
    assert last_door(BrokenPipeError(32, "Broken pipe"), ["fit"]) == 2
    assert "Broken pipe" in capfd.readouterr().err


@pytest.mark.parametrize("value", ["--grounding=" + "9" * 500, "--print_config=--"])
def test_a_value_over_which_the_parser_stumbles_is_refused(value: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["prepare", "folder", "nowhere", "--out", "out", value])
    assert end.value.code == 2
    assert f"look at --out, {value.partition('=')[0]} " in capfd.readouterr().err
