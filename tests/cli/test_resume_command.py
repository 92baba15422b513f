"""``lightning fit`` stopped and gone on with: damaged files, full disks, signals; what it says and what it does."""

import json
import os
import resource
import shlex
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch

from callbacks.checkpoint_io import DurableCheckpointIO
from meddiff.common.check_sums import digest_of, read_sum
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.command import call, exit_code, write_fit
from tests.builders.command_runs import start

NAMED = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"monitor": "val/loss", "filename": "{step}-{val/loss:.3f}", "save_top_k": 2},
}
STEPS = 6
#: A closed terminal takes the way of SIGTERM; `prepare` is asked all three each time (test_prepare_stopped.py).
SIGNALS = [("SIGTERM", 143), ("SIGINT", 130), pytest.param("SIGHUP", 129, marks=pytest.mark.slow)]


def checkpoints(*extra: dict[str, object]) -> dict[str, object]:
    """The trainer's part: six steps, validation every two, a checkpoint every two."""
    own = {"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_images": 16}}
    return {"max_steps": STEPS, "callbacks": [own, *extra]}


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs" / "t").iterdir()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path, vae_folder: Path) -> Path:
    """The run folder of a training that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert exit_code("fit", "-c", str(write_fit(folder / "c.yaml", shards, vae_folder, checkpoints()))) == 0
    return only_run(folder)


@pytest.fixture
def stopped(whole, tmp_path) -> Path:
    """The same as it was left after four steps: in a folder with a blank in its name."""
    run = shutil.copytree(whole, tmp_path / "my runs" / "one", symlinks=True)
    for file in ("step-00000006.ckpt", "step-00000006.ckpt.sha256"):
        (run / "checkpoints" / file).unlink()
    return run  # last.ckpt is a link to nothing now


def state(file: Path) -> dict[str, object]:
    return torch.load(file, weights_only=True)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def rows(run: Path) -> list[dict[str, object]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def assert_as_if_never_stopped(run: Path, whole: Path) -> None:
    """Weights, optimiser, averages and rows are the same bits."""
    last = "checkpoints/step-00000006.ckpt"
    a, b = state(whole / last), state(run / last)
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "captions", "LatentShardsDataModule"):
        if part in a:
            assert same(a[part], b[part]), part
    assert rows(whole) == rows(run)


# ---- what is damaged ------------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100_000)


def empty(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [cut, empty])
def test_a_damaged_newest_checkpoint_is_passed_over(damage, stopped, whole, capsys):
    damage(stopped / "checkpoints" / "step-00000004.ckpt")
    (stopped / "checkpoints" / "foreign.ckpt").write_text("<html>")  # still there at the end: told once all the same
    code, _, err = call(capsys, "fit", "--resume", str(stopped))
    assert code == 0, err
    told = [line for line in err.splitlines() if line.startswith("passed over")]
    assert len(told) == 1
    assert "step-00000004.ckpt" in told[0]
    assert "last.ckpt (a link to nothing)" in told[0]
    assert "step-00000002.ckpt (step 2)" in told[0]
    assert_as_if_never_stopped(stopped, whole)


def test_a_damaged_checkpoint_that_is_named_is_refused_before_anything_starts(stopped, capsys):
    file = stopped / "checkpoints" / "step-00000004.ckpt"
    cut(file)
    code, out, err = call(capsys, "fit", "-c", str(stopped / "config.yaml"), "--ckpt_path", str(file))
    assert (code, out) == (2, "")
    (sentence,) = [line for line in err.splitlines() if line.startswith(f"error: {file} is not a whole checkpoint")]
    assert sentence == err.splitlines()[-1]
    assert "step-00000002.ckpt" in err
    code, _, err = call(capsys, "sample", "--ckpt", str(file), "--prompts", "x", "--out", str(stopped / "s"))
    assert code == 2
    assert "step-00000002.ckpt" in err


def test_cut_lines_an_empty_id_and_leftovers_do_not_matter(stopped, whole):
    """A run resumed at a step with validation, too: its row is there once."""
    metrics = stopped / "metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if json.loads(line)["step"] < 4) + '{"step": 4, "tr')
    (stopped / "wandb_id.txt").write_text("")
    left = stopped / "checkpoints" / ".step-00000005.ckpt.abcd1234.part"
    left.write_bytes(b"PK")
    assert exit_code("fit", "--resume", str(stopped)) == 0
    assert_as_if_never_stopped(stopped, whole)
    assert not left.exists()
    assert (stopped / "wandb_id.txt").read_text().strip()


def test_the_rows_of_a_step_are_there_before_its_checkpoint(tmp_path, shards, vae_folder):
    """Else a run that is killed in between would never have them."""
    watch = {"class_path": "tests.builders.signals.RowsAtCheckpoints"}
    assert exit_code("fit", "-c", str(write_fit(tmp_path / "c.yaml", shards, vae_folder, checkpoints(watch)))) == 0
    run = only_run(tmp_path)
    seen = [tuple(map(int, line.split())) for line in (run / "rows.txt").read_text().splitlines()]
    expected = [
        (n, sum(int(str(row["step"])) < n or ("val/loss" in row and row["step"] == n) for row in rows(run)))
        for n in (2, 4, 6)
    ]
    assert seen == expected


# ---- how it is written ----------------------------------------------------------------------------------------------


def test_nothing_goes_through_the_temporary_folder_and_sums_stand_beside(tmp_path, shards, vae_folder, monkeypatch):
    plain, folders = tempfile.mkstemp, []

    def watched(suffix=None, prefix=None, dir=None, text=False):
        folders.append(dir)
        return plain(suffix, prefix, dir, text)

    monkeypatch.setattr(tempfile, "mkstemp", watched)
    newest_only = {"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_images": 16, "keep_all": False}}
    trainer = {"callbacks": [newest_only]}
    assert exit_code("fit", "-c", str(write_fit(tmp_path / "c.yaml", shards, vae_folder, trainer))) == 0
    folder = only_run(tmp_path) / "checkpoints"
    assert {Path(one) for one in folders if one is not None} >= {folder}
    assert all(one is not None and Path(one).is_relative_to(tmp_path) for one in folders)
    assert sorted(path.name for path in folder.iterdir()) == [
        "last.ckpt",
        "step-00000004.ckpt",
        "step-00000004.ckpt.sha256",
    ]
    assert read_sum(folder / "step-00000004.ckpt") == digest_of(folder / "step-00000004.ckpt")
    assert (folder / "last.ckpt").resolve() == folder / "step-00000004.ckpt"


def test_a_full_disk_is_one_sentence_and_the_older_checkpoint_stays(stopped, whole, capsys):
    folder, before = stopped / "checkpoints", resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = {path.name for path in folder.iterdir()}
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "step-00000004.ckpt").stat().st_size // 2, before[1]))
    try:
        code, _, err = call(capsys, "fit", "--resume", str(stopped))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: No room to write {folder / 'step-00000006.ckpt'}")
    assert "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == kept
    assert exit_code("fit", "--resume", str(stopped)) == 0
    assert_as_if_never_stopped(stopped, whole)


class OfTheUser(DurableCheckpointIO):
    """A plugin that somebody chose."""

    used = 0

    def save_checkpoint(self, *args: object, **kwargs: object) -> None:
        OfTheUser.used += 1
        super().save_checkpoint(*args, **kwargs)


def test_a_plugin_of_the_user_is_taken(tmp_path, shards, vae_folder):
    from meddiff.cli.lightning_cli import with_durable_checkpoints

    own = OfTheUser()
    assert with_durable_checkpoints({"plugins": [own]}) == [own]
    assert with_durable_checkpoints({"plugins": own}) == [own]
    assert [type(one) for one in with_durable_checkpoints({"plugins": None})] == [DurableCheckpointIO]


# ---- what it says ---------------------------------------------------------------------------------------------------


def printed(out: str, word: str) -> list[str]:
    """The arguments of the command after ``word``."""
    (line,) = (line for line in out.splitlines() if line.strip().startswith(word))
    return shlex.split(line.partition(word)[2])[1:]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_closing_lines_work_for_names_with_slashes_and_blanks(elsewhere, tmp_path, shards, vae_folder, capsys):
    folder = tmp_path / "my folder"
    folder.mkdir()
    callback = {
        **NAMED,
        "init_args": {**NAMED["init_args"], **({"dirpath": str(tmp_path / "else where")} if elsewhere else {})},
    }
    config = write_fit(folder / "c.yaml", shards, vae_folder, {"callbacks": [callback]})
    code, out, _ = call(capsys, "fit", "-c", str(config))
    assert code == 0
    again = [argument if argument != "N" else "6" for argument in printed(out, "go on:")]
    draw = [*printed(out, "draw:"), "--steps", "1", "--out", str(tmp_path / "drawn")]
    code, out, err = call(capsys, *again)
    assert code == 0, err
    assert "finished at step 6" in out
    assert call(capsys, *draw)[0] == 0
    assert (tmp_path / "drawn" / "0000-000.png").is_file()


def test_nothing_is_promised_where_no_checkpoint_is(tmp_path, shards, vae_folder, capsys):
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder, {"enable_checkpointing": False, "max_steps": 2})
    code, out, _ = call(capsys, "fit", "-c", str(config))
    assert code == 0
    assert "go on:" not in out
    assert "draw:" not in out


# ---- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_a_signal_ends_with_a_checkpoint_and_its_code(name, code, tmp_path, shards, vae_folder, whole, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        sender = {"class_path": "tests.builders.signals.Signaller", "init_args": {"name": name, "step": 3}}
        config = write_fit(tmp_path / "c.yaml", shards, vae_folder, checkpoints(sender))
        returned, out, _ = call(capsys, "fit", "-c", str(config))
    finally:
        signal.signal(signal.SIGINT, before)
    assert returned == code
    assert "stopped at step 3" in out
    run = only_run(tmp_path)
    assert (run / "checkpoints" / "last.ckpt").resolve().name == "step-00000003.ckpt"
    assert exit_code(*printed(out, "go on:")) == 0
    assert_as_if_never_stopped(run, whole)


def test_a_signal_at_the_last_step_lets_it_end_and_still_has_its_code(tmp_path, shards, vae_folder):
    sender = {"class_path": "tests.builders.signals.Signaller", "init_args": {"name": "SIGTERM", "step": STEPS}}
    assert exit_code("fit", "-c", str(write_fit(tmp_path / "c.yaml", shards, vae_folder, checkpoints(sender)))) == 143
    assert (only_run(tmp_path) / "checkpoints" / "step-00000006.ckpt").is_file()


def test_a_checkpoint_is_written_whoever_s_callback_writes_them(tmp_path, shards, vae_folder, capsys):
    sender = {"class_path": "tests.builders.signals.Signaller", "init_args": {"name": "SIGTERM", "step": 3}}
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder, {"callbacks": [NAMED, sender]})
    code, out, _ = call(capsys, "fit", "-c", str(config))
    assert code == 143
    assert (only_run(tmp_path) / "checkpoints" / "step-00000003.ckpt").is_file()
    assert exit_code(*printed(out, "go on:")) == 0


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_all_processes_stop_after_the_same_step(rank, tmp_path, shards, vae_folder):
    """The signal reaches one of two processes."""
    trainer = checkpoints(
        {"class_path": "tests.builders.signals.Signaller", "init_args": {"name": "SIGTERM", "step": 3, "rank": rank}}
    )
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder, {**trainer, "devices": 2, "strategy": "ddp"})
    process = start(["-c", str(config)], tmp_path / "keys")
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 143, out
    assert "stopped at step 3" in out
    assert "Traceback" not in out
    assert (only_run(tmp_path) / "checkpoints" / "step-00000003.ckpt").is_file()


@pytest.mark.parametrize(("name", "code"), SIGNALS)
def test_sample_stopped_by_a_signal_says_how_to_go_on(name, code, whole, tmp_path, capsys, monkeypatch):
    plain, drawn = LatentDiffusion.sample, []

    def sample(*args, **kwargs):
        drawn.append(1)
        if len(drawn) == 2:
            signal.raise_signal(getattr(signal, name))
        return plain(*args, **kwargs)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(LatentDiffusion, "sample", sample)
    command = ["sample", "--ckpt", str(whole), "--prompts", "a", "b", "--steps", "1", "--batch_size", "1"]
    command += ["--out", str(tmp_path / "drawn")]
    try:
        returned, _, err = call(capsys, *command)
    finally:
        signal.signal(signal.SIGINT, before)
    assert returned == code
    assert err.splitlines()[-1] == "stopped: finished images are whole, and the same command goes on from there"
    assert "Traceback" not in err
    assert [path.name for path in (tmp_path / "drawn").glob("*.png")] == ["0000-000.png"]
    assert exit_code(*command) == 0
    assert len(drawn) == 3


def test_a_full_disk_while_drawing_is_one_sentence(whole, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code, _, err = call(
            capsys, "sample", "--ckpt", str(whole), "--prompts", "a", "--steps", "1", "--out", str(tmp_path / "drawn")
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: No room to write")
    assert not list((tmp_path / "drawn").glob("*.png"))
