"""SLURM's signal puts the job back into the queue, with a checkpoint between two steps; the same command goes on.

With a real SLURM: ``tools/slurm_proof.py``. Here ``scontrol`` is a program that writes down what it is asked.
"""

import signal
from pathlib import Path

import pytest

from callbacks.requeue import slurm_job
from tests.builders.command import call, write_fit

STEPS = 6


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of one process, and the file in which ``scontrol`` writes; empty it to make it fail."""
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    scontrol = programs / "scontrol"
    scontrol.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{asked}" || exit 1\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    settings = {"JOB_ID": "17", "JOB_NAME": "proof", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return asked


def config(folder: Path, shards: Path, vae: Path, signal: str = "SIGUSR1") -> str:
    sender = {"class_path": "tests.builders.signals.Signaller", "init_args": {"name": signal, "step": 3}}
    trainer = {"max_steps": STEPS, "callbacks": [sender]}
    return str(write_fit(folder / "c.yaml", shards, vae, trainer, checkpoint={"every_n_images": 800}))


def test_the_job_goes_back_and_goes_on(
    slurm: Path, tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = config(tmp_path, shards, vae_folder)
    code, _, err = call(capsys, "fit", "-c", file)
    assert code == 0, err
    assert "job 17 is back in the queue and goes on from step 3" in err
    assert slurm.read_text() == "requeue 17\n"
    (run,) = (tmp_path / "runs" / "t").iterdir()
    assert (run / "checkpoints" / "last.ckpt").resolve().name == "step-00000003.ckpt"
    assert not list(run.glob("hpc_ckpt*")), "Lightning's own handler would have saved in the middle of a step"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.delenv("MEDDIFF_RUN_DIR", raising=False)
    code, _, err = call(capsys, "fit", "-c", file)
    assert code == 0, err
    assert [one.name for one in (tmp_path / "runs" / "t").iterdir()] == [run.name]
    assert (run / "checkpoints" / "last.ckpt").resolve().name == f"step-{STEPS:08d}.ckpt"
    assert slurm.read_text() == "requeue 17\n"  # step 3 did not come again


def test_time_that_is_up_before_training_begins(
    slurm: Path, tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading torch, making a cohort and a first evaluation take their time, too: the signal would end the process."""
    sender = {"class_path": "tests.builders.signals.EarlySignaller", "init_args": {"name": "SIGUSR1"}}
    trainer = {"max_steps": STEPS, "callbacks": [sender]}
    file = write_fit(tmp_path / "c.yaml", shards, vae_folder, trainer, checkpoint={"every_n_images": 800})
    code, _, err = call(capsys, "fit", "-c", str(file))
    assert code == 0, err
    assert "job 17 is back in the queue and goes on from step 1" in err
    assert slurm.read_text() == "requeue 17\n"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL, "and what is not ours is left as it was"


def test_a_queue_that_does_not_take_it_is_said(
    slurm: Path, tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.mkdir()  # nothing can be written there
    code, _, err = call(capsys, "fit", "-c", config(tmp_path, shards, vae_folder))
    assert code == 128 + 10
    assert "SLURM did not put job 17 back into the queue" in err
    assert "lightning fit --resume" in err


def test_scancel_ends_the_job(
    slurm: Path, tmp_path: Path, shards: Path, vae_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: SIGTERM saves too, and asks for nothing."""
    code, _, _ = call(capsys, "fit", "-c", config(tmp_path, shards, vae_folder, "SIGTERM"))
    assert code == 143
    assert not slurm.exists()


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({"SLURM_JOB_ID": "17"}, "17"),
        ({"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}, "17_2"),
        ({"SLURM_JOB_ID": "17; rm -rf /"}, ""),
        ({}, ""),
    ],
)
def test_a_job_is_named_as_scontrol_does(variables: dict[str, str], job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert slurm_job() == job
