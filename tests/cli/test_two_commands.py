"""A second command in the place of a first one that still writes: refused where both would write, or made to wait."""

import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import prepare_phantom
from meddiff.runs import names
from tests.builders.command import call, write_fit

HOLD = """
import sys
from meddiff.common.locks import locked
with locked(sys.argv[1], "the first command"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards, vae_folder) -> Path:
    from meddiff.cli.main import dispatch

    folder = tmp_path_factory.mktemp("two")
    config = write_fit(folder / "c.yaml", shards, vae_folder, {"max_steps": 2}, checkpoint={"every_n_images": 16})
    assert dispatch(["fit", "-c", str(config)]) == 0
    return next((folder / "runs" / "t").iterdir())


def test_who_would_write_the_same_files_is_refused(run, tmp_path, capsys):
    before = (run / names.METRICS).read_text()
    commands = {
        run: ("fit", "--resume", str(run), "--trainer.max_steps", "4"),
        tmp_path / "drawn": ("sample", "--ckpt", str(run), "--prompts", "x", "--out", str(tmp_path / "drawn")),
        tmp_path / "e": ("evaluate", "grounding", "--run", str(run), "--out", str(tmp_path / "e")),
    }
    for folder, arguments in commands.items():
        first = holding(folder)
        code, _, err = call(capsys, *arguments)
        assert code == 2, err
        assert f"{folder} is being written by process {first.pid}" in err
        assert "(the first command, since" in err
        first.communicate("\n")
    assert (run / names.METRICS).read_text() == before
    assert not (tmp_path / "drawn").exists()
    assert not (tmp_path / "e").exists()
    code, _, err = call(capsys, *commands[run])
    assert code == 0, err


def test_who_wants_the_same_cohort_waits_for_it(tmp_path, vae_folder, capfd):
    options, made = PhantomOptions(n=8, resolution=64, grounding=4, fidelity=0, val=0), []

    def prepare() -> None:
        made.append(prepare_phantom(options, tmp_path / "shards", str(vae_folder), processes=1, show_progress=False))

    first, second = holding(tmp_path / "shards"), Thread(target=prepare)
    second.start()
    heard = ""
    end = time.monotonic() + 120
    while "waiting for process" not in heard and time.monotonic() < end:
        heard += capfd.readouterr().err
        time.sleep(0.01)
    assert f"waiting for process {first.pid}" in heard
    assert not (tmp_path / "shards" / "manifest.json").exists()
    assert second.is_alive()
    first.communicate("\n")
    second.join(timeout=120)
    (manifest,) = made
    assert manifest.samples("grounding") == 4
