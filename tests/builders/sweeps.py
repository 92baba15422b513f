"""Sweeps of small real processes: their files, the runner in this process or in one of its own, and what they left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from meddiff.common.files import make_folder
from meddiff.launch.plan import Plan
from meddiff.launch.runner import Runner
from meddiff.launch.sweep_file import SweepFile, read_sweep_file
from tests.builders.children import ROOT, environment

CHILD = ROOT / "tests" / "builders" / "sweep_child.py"
#: Nothing takes so long; a machine that does much else must not fail a test.
PATIENCE = 120.0


def write_sweep(folder: Path, parameters: dict[str, object], **keys: object) -> Path:
    """A sweep file whose runs are tests/builders/sweep_child.py; lists are values, other things a constant or a mapping."""
    config = {
        "name": "trial",
        "method": "grid",
        "parameters": {
            name: {"values": given}
            if isinstance(given, list)
            else given
            if isinstance(given, dict)
            else {"value": given}
            for name, given in parameters.items()
        },
        "command": [sys.executable, str(CHILD), "${args}"],
        **keys,
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def runner_of(file: Path, jobs: int = 1, seed: int = 0, retry_failed: bool = False) -> Runner:
    """A runner of the sweep in ``trial`` beside its file."""
    sweep: SweepFile = read_sweep_file(file)
    plan = Plan(file.parent / "trial", sweep.name, "beef0001", seed, jobs, retry_failed, cores=4)
    make_folder(plan.folder)
    return Runner(sweep, plan)


def command(file: Path, *options: str, limit: int | None = None) -> "subprocess.Popen[str]":
    """``lightning sweep`` in a process of its own, in ``trial`` beside the file.

    Args:
        limit: bytes that a file may have.
    """

    def limited() -> None:
        import resource

        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return subprocess.Popen(
        [sys.executable, "-m", "meddiff", "sweep", str(file), "--runs", str(file.parent), *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=limited,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)


def folders(file: Path) -> list[Path]:
    """The run folders by number."""
    return sorted((file.parent / "trial").glob("[0-9]*-*"))


def starts(folder: Path) -> list[tuple[int, int]]:
    """(pid, how often it had been started before) of each start of a run."""
    text = (folder / "starts").read_text() if (folder / "starts").is_file() else ""
    return [(int(line.split()[0]), int(line.split()[1])) for line in text.splitlines()]


def rows(folder: Path) -> list[int]:
    """The steps that a run has logged."""
    file = folder / "metrics.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.is_file() else []


def events(file: Path) -> list[dict[str, object]]:
    """The lines of ``runs.jsonl``."""
    record = file.parent / "trial" / "runs.jsonl"
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


def states(runner: Runner) -> list[str]:
    """Of all runs, by number."""
    return [runner.record.runs[number].state for number in sorted(runner.record.runs)]


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
