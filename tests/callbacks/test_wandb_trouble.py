"""W&B in trouble after a run has begun: its server falls silent, its own process dies, its files cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from callbacks.media import Media, Picture
from callbacks.tracking import RunWandbLogger
from callbacks.wandb_rows import log_to_wandb
from callbacks.wandb_trouble import finish_wandb
from tests.builders.command import PATIENCE, ROOT
from tests.builders.wandb_service import service

#: Logs a row, waits to be told, logs many, ends as the command does.
TRAINING = """
import sys, time
from callbacks.tracking import RunWandbLogger
from callbacks.wandb_trouble import finish_wandb
logger = RunWandbLogger(sys.argv[1], "name", offline=sys.argv[2] == "offline")
logger.log_metrics({"images": 0.0, "loss": 0.5}, 0)
print("offline" if logger._offline else "online", flush=True)
sys.stdin.readline()
for i in range(50):
    logger.log_metrics({"images": float(i), "loss": 0.25}, i)
    time.sleep(0.01)
print("trained", flush=True)
finish_wandb()
print("ended", flush=True)
"""


def begin(folder: Path, mode: str, **environment: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SERVICE")}
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(folder / "t" / "time"), mode],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "WANDB_API_KEY": "0" * 40, "no_proxy": "127.0.0.1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go_on(process: "subprocess.Popen[str]") -> tuple[str, str]:
    return process.communicate("go on\n", timeout=PATIENCE)


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def own_process_of_wandb(parent: int) -> int:
    """The id of W&B's process that a process has started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                called, status = (entry / "cmdline").read_bytes(), (entry / "status").read_text()
            except OSError:
                continue
            if b"wandb-core" in called and f"PPid:\t{parent}\n" in status:
                return int(entry.name)
    raise AssertionError("no process of W&B's")


@pytest.mark.slow
def test_a_server_that_falls_silent_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """W&B itself waits for ever; what was not sent lies on the disk. 30 s, most of it W&B's own giving up."""
    with service() as server:
        process = begin(tmp_path, "online", WANDB_BASE_URL=server.address, WANDB_FINISH_TIMEOUT="3")
        said = [first_line(process)]
        while said[-1] not in ("online", "offline"):
            said.append(first_line(process))
        assert said[-1] == "online"
        assert "UpsertBucket" in server.asked, "the control: it has begun there"
        server.silent.set()
        out, err = go_on(process)
    assert out.split() == ["trained", "ended"], out + err
    assert process.returncode == 0
    assert list((tmp_path / "t" / "time" / "wandb").glob("run-*/run-*.wandb"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the process in /proc")
def test_its_own_process_dies(tmp_path: Path) -> None:
    process = begin(tmp_path, "offline")
    assert first_line(process) == "offline"
    os.kill(own_process_of_wandb(process.pid), 9)
    out, err = go_on(process)
    lines = out.splitlines()
    assert lines.count("trained") == lines.count("ended") == 1, out + err
    told = [line for line in lines if "W&B" in line]
    assert told[0].startswith("W&B gave up (")
    assert sum("gave up" in line for line in told) == 1
    assert process.returncode == 0


def test_pictures_that_cannot_be_written_end_its_part_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk without room gives the same kind of error as a file where a folder should be."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = RunWandbLogger(tmp_path / "t" / "time", "name")
    picture = Picture(np.zeros((8, 8, 3), np.uint8), "a caption")

    def evaluation(i: int) -> None:
        rows = [(i, {"grounding/cnr": 0.5})]
        shown = [Media({"grounding/attention": [picture]})] if i else []
        log_to_wandb(logger, {"images": float(i), "grounding/cnr": 0.5}, shown, rows, i)

    evaluation(0)
    files = Path(str(logger.experiment.dir))
    (files / "media").write_text("no folder")
    for i in (1, 2, 3):
        evaluation(i)
    logger.log_metrics({"images": 4.0, "loss": 0.5}, 4)
    finish_wandb()
    told = capsys.readouterr().out.splitlines()
    assert len([line for line in told if line.startswith("W&B gave up (")]) == 1, told
