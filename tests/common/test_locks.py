"""One writer for a folder: who comes second, what a kill leaves, and that two who find it do not both go on."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from meddiff.common.locks import LOCK, Busy, _make, locked
from meddiff.common.processes import Process, started

PATIENCE = 120
HOLD = """
import sys, time
from meddiff.common.locks import locked
with locked(sys.argv[1], "a long task"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
#: Appends one line with the lock held: read, wait, write back. Without a lock, lines are lost.
ADD = """
import sys, time
from pathlib import Path
from meddiff.common.locks import locked
folder = Path(sys.argv[1])
for _ in range(10):
    with locked(folder, "adding", wait=True):
        text = (folder / "n").read_text() if (folder / "n").exists() else "0"
        time.sleep(0.005)
        (folder / "n").write_text(str(int(text) + 1))
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def holding(folder: Path, seconds: float = PATIENCE) -> subprocess.Popen[str]:
    process = python(HOLD, folder, seconds)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_comes_second_is_told_who_holds_it(tmp_path):
    first = holding(tmp_path / "run")
    try:
        told = rf"process {first.pid} on {socket.gethostname()} \(a long task, since 20"
        with pytest.raises(Busy, match=told), locked(tmp_path / "run", "another"):
            raise AssertionError("both hold it")
        with locked(tmp_path / "other", "another"):
            pass
    finally:
        first.kill()
        first.wait()


def test_a_killed_holder_blocks_nobody_and_is_told(tmp_path, capsys):
    first = holding(tmp_path / "run")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == first.pid
    with locked(tmp_path / "run", "the next"):
        assert f"was left by process {first.pid}" in capsys.readouterr().err
        (tmp_path / "run" / "kept").touch()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["kept"]


def test_a_killed_holder_whose_children_live_on_blocks_nobody(tmp_path):
    """Loader processes are forks that share every open file."""
    code = HOLD.replace(
        'print("held"',
        'import os\n    if not os.fork():\n        time.sleep(60)\n        os._exit(0)\n    print("held"',
    )
    first = python(code, tmp_path / "run", PATIENCE)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    child = int(subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True, check=True).stdout)
    first.kill()
    first.wait()
    try:
        assert started(child) is not None
        with locked(tmp_path / "run", "the next"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_of_many_who_wait_each_goes_on_alone(tmp_path):
    """Also of those who find the lock of a dead process: exactly one at a time."""
    dead = holding(tmp_path / "run")
    dead.kill()
    dead.wait()
    together = [python(ADD, tmp_path / "run") for _ in range(4)]
    for process in together:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert (tmp_path / "run" / "n").read_text() == "40"


def test_a_thread_takes_it_again_and_another_thread_does_not(tmp_path):
    found: list[type[BaseException] | None] = []

    def other() -> None:
        try:
            with locked(tmp_path / "run", "other"):
                found.append(None)
        except Busy:
            found.append(Busy)

    with locked(tmp_path / "run", "outer"):
        with locked(tmp_path / "run" / ".." / "run", "inner"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert (tmp_path / "run" / LOCK).exists()
    assert found == [Busy]
    assert not (tmp_path / "run").exists(), "nothing was written: no empty folder stays"


def test_what_was_written_stays_after_an_error(tmp_path):
    with suppress(ZeroDivisionError), locked(tmp_path / "run", "failing"):
        (tmp_path / "run" / "half").touch()
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["half"]


def test_a_lock_file_that_was_cut_is_taken(tmp_path):
    (tmp_path / LOCK).write_text('{"host": "x", "pi')
    with locked(tmp_path, "next"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_number_that_was_given_again_is_another_process():
    mine = Process(socket.gethostname(), os.getpid(), started(os.getpid()) or "", "", "")
    assert not mine.is_gone()
    earlier = Process(socket.gethostname(), os.getpid(), "boot:1", "", "")
    assert earlier.is_gone()
    short = subprocess.Popen([sys.executable, "-c", ""])
    born = started(short.pid)
    short.wait()
    assert Process(socket.gethostname(), short.pid, born or "", "", "").is_gone()
    assert not Process("another-host", short.pid, born or "", "", "").is_gone()


def test_where_the_file_system_knows_no_locks(tmp_path, monkeypatch):
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with locked(tmp_path, "first"):
        (tmp_path / "kept").touch()
    parent = Process(socket.gethostname(), os.getppid(), started(os.getppid()) or "", "", "running")
    (tmp_path / LOCK).write_text(json.dumps(parent.to_json()))
    with pytest.raises(Busy, match="delete"), locked(tmp_path, "second"):
        pass
    (tmp_path / LOCK).write_text(json.dumps({**parent.to_json(), "started": "boot:1"}))
    with locked(tmp_path, "third"):
        pass


def test_a_folder_that_another_takes_away_at_the_same_moment_is_made_again(tmp_path: Path) -> None:
    """`mkdir(exist_ok=True)` itself fails there: it finds the folder, looks whether it is one, and finds nothing."""
    folder, stop = tmp_path / "contested", threading.Event()

    def take_away() -> None:
        while not stop.is_set():
            with suppress(OSError):
                folder.rmdir()

    thread = threading.Thread(target=take_away)
    thread.start()
    try:
        for _ in range(5000):
            _make(folder)
    finally:
        stop.set()
        thread.join()
    folder.mkdir(exist_ok=True)
    (folder / "file").touch()
    with pytest.raises(FileExistsError):
        _make(folder / "file")
