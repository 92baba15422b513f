"""``finished.json`` stands for a training that ended as it should; a run whose folder is given goes on in it."""

import json
from pathlib import Path

import pytest

from meddiff.runs import names
from meddiff.runs.new_run import RESTART_VARIABLE, RUN_DIR_VARIABLE
from tests.builders.command import call, write_fit


def config(folder: Path, shards: Path, vae: Path, step: int = 0, steps: int = 4, every: int = 800) -> str:
    """A training of four steps that sends itself a SIGTERM in one of them."""
    sender = {"class_path": "tests.builders.signals.Signaller", "init_args": {"name": "SIGTERM", "step": step}}
    trainer = {"max_steps": steps, "callbacks": [sender] if step else []}
    return str(write_fit(folder / "c.yaml", shards, vae, trainer, checkpoint={"every_n_images": every}))


def logged(run: Path) -> list[int]:
    rows = map(json.loads, (run / names.METRICS).read_text().splitlines())
    return [row["step"] for row in rows if "train/loss" in row]


def test_a_training_that_ends_says_so_and_one_that_is_stopped_does_not(tmp_path, shards, vae_folder, capsys):
    assert call(capsys, "fit", "-c", config(tmp_path, shards, vae_folder))[0] == 0
    (run,) = (tmp_path / "runs" / "t").iterdir()
    assert json.loads((run / names.FINISHED).read_text()) == {"images": 32, "step": 4}
    # goes on and is stopped: what was finished is not any more
    file = config(tmp_path, shards, vae_folder, step=6, steps=8)
    code, _, err = call(capsys, "fit", "-c", file, "--resume", str(run), "--trainer.max_steps", "8",
                        "--trainer.callbacks+=tests.builders.signals.Signaller", "--trainer.callbacks.name", "SIGTERM",
                        "--trainer.callbacks.step", "6")  # fmt: skip
    assert code == 143, err
    assert not (run / names.FINISHED).exists()
    assert call(capsys, "fit", "--resume", str(run), "--trainer.max_steps", "8", "--trainer.callbacks", "null")[0] == 0
    assert json.loads((run / names.FINISHED).read_text()) == {"images": 64, "step": 8}


def test_a_training_that_fails_does_not_say_so(tmp_path, shards, vae_folder, capsys):
    file = config(tmp_path, shards, vae_folder)
    limits = ("--model.learning_rate=1e30", "--model.stop_after_skipped_steps=1")
    code, _, err = call(capsys, "fit", "-c", file, *limits)
    assert code == 2, err
    (run,) = (tmp_path / "runs" / "t").iterdir()
    assert not (run / names.FINISHED).exists()


def test_a_dry_run_leaves_no_mark(tmp_path, shards, vae_folder, capsys):
    assert call(capsys, "fit", "-c", config(tmp_path, shards, vae_folder), "--trainer.fast_dev_run=1")[0] == 0
    assert not list(tmp_path.rglob(names.FINISHED))


@pytest.mark.parametrize("every", [16, 800], ids=["with a checkpoint", "without one"])
def test_a_run_that_is_started_again_goes_on_in_its_folder(every, tmp_path, shards, vae_folder, capsys, monkeypatch):
    """The same words, with the two variables of a sweep; its rows stand there once."""
    file = config(tmp_path, shards, vae_folder, step=3, every=every)
    run = tmp_path / "sweep" / "0001-aa"
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(run))
    code, _, err = call(capsys, "fit", "-c", file)
    assert code == 143, err
    assert logged(run) == [0, 1, 2]
    if every == 800:  # as a kill before the first checkpoint leaves it
        for one in (run / names.CHECKPOINTS).iterdir():
            one.unlink()
    monkeypatch.setenv(RESTART_VARIABLE, "1")
    plain = config(tmp_path, shards, vae_folder, every=every)
    code, _, err = call(capsys, "fit", "-c", plain)
    assert code == 0, err
    assert logged(run) == [0, 1, 2, 3]
    assert (run / names.FINISHED).is_file()
    assert not (tmp_path / "runs").exists()
