"""``lightning prepare`` killed, interrupted with Ctrl-C, and started again: whole shards, no process left, the same bytes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meddiff.preparation.record_images import RecordImages
from tests.builders.cohort_trees import listing, make_folder
from tests.builders.command import ROOT, call, exit_code

#: One Lightning process: this one; and a pool.
HERE = ("--resolution", "64", "--accelerator", "cpu", "--devices", "1")
POOL = ("--resolution", "64", "--accelerator", "cpu", "--processes", "2")
STOPPED = "stopped: finished shards are whole, and the same command goes on from there"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """204 images: 14 shards, so that there is time to stop between them."""
    return make_folder(tmp_path_factory.mktemp("command") / "tree", train=200, boxed=4)


@pytest.fixture(scope="module")
def whole(tree: Path, vae_folder: Path) -> dict[str, str]:
    """What the command writes when nobody stops it; without the command line, which names the folder."""
    out = tree.parent / "whole"
    assert exit_code(*arguments(tree, out, vae_folder), *HERE) == 0
    return results(out)


def arguments(tree: Path, out: Path, vae: Path) -> list[str]:
    return ["prepare", "folder", "--root", str(tree), "--out", str(out), "--vae", str(vae)]


def results(out: Path) -> dict[str, str]:
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["command"]
    return listing(out) | {"manifest.json": json.dumps(manifest)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``lightning ARGUMENTS`` in a group of its own, as a terminal does; nothing outlives the test."""
    started = []

    def begin(*given: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "meddiff", *given], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=heed_interrupts,
        )  # fmt: skip
        started.append(child)
        return child

    yield begin
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def heed_interrupts() -> None:
    """A shell lets background jobs ignore SIGINT and children inherit that; a command at a terminal does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_of(group: int) -> set[int]:
    """Processes of a group that have not ended."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(member) == group and state not in "ZX":
            found.add(int(stat.parent.name))
    return found


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str] | None = None) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + 200, "took too long"
        assert child is None or child.poll() is None, child and child.communicate()
        time.sleep(0.001)
    return time.monotonic() - begin


def leftovers(out: Path) -> set[str]:
    return {path.name for path in out.glob(".*.tar.*")}


@pytest.mark.slow  # killed at any point: preparation/test_prepare_cohort.py
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_killed_then_interrupted_then_left_alone_gives_the_same_bytes(tree, whole, vae_folder, tmp_path, start, capsys):
    out = tmp_path / "out"
    command = [*arguments(tree, out, vae_folder), *POOL]

    child = start(*command)
    wait_for(lambda: bool(list(out.glob("*.tar"))), child)
    assert len(processes_of(child.pid)) >= 3  # itself and two workers
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    took = wait_for(lambda: not processes_of(child.pid))
    print(f"workers ended {took:.1f} s after their parent was killed")
    finished = set(out.glob("*.tar"))
    assert not (out / "manifest.json").exists()
    half_written = leftovers(out)

    child = start(*command)
    wait_for(lambda: len(list(out.glob("*.tar"))) > len(finished), child)
    os.killpg(child.pid, signal.SIGINT)  # what Ctrl-C does: to the workers too
    _, err = child.communicate(timeout=200)
    assert child.returncode == 130
    assert err.replace("\r", "\n").splitlines()[-1] == STOPPED
    assert "Traceback" not in err
    wait_for(lambda: not processes_of(child.pid))
    assert leftovers(out) <= half_written
    assert finished < set(out.glob("*.tar"))
    assert not (out / "manifest.json").exists()

    # the last third in this process, which needs no pool's start: the bytes are the same
    assert call(capsys, *arguments(tree, out, vae_folder), *HERE)[0] == 0
    assert results(out) == whole


@pytest.mark.parametrize(("asked", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_in_lightning_leaves_whole_shards_and_the_same_command_goes_on(
    asked, expected, tree, whole, vae_folder, tmp_path, capsys, monkeypatch
):
    plain, seen, out = RecordImages.__call__, [0], tmp_path / "out"

    def interrupted(self, record):
        seen[0] += 1
        if seen[0] == 70:
            signal.raise_signal(asked)
        return plain(self, record)

    monkeypatch.setattr(RecordImages, "__call__", interrupted)
    before = signal.getsignal(signal.SIGINT)
    heed_interrupts()
    try:
        code, _, err = call(capsys, *arguments(tree, out, vae_folder), *HERE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == expected
    assert err.splitlines()[-1] == STOPPED
    assert "Traceback" not in err
    assert not leftovers(out)
    assert 0 < len(list(out.glob("*.tar"))) < 14
    assert call(capsys, *arguments(tree, out, vae_folder), *HERE)[0] == 0
    assert results(out) == whole
    assert seen[0] < 70 + 204
