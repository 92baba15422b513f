"""Text from outside at the doors of the suite, one example a door: refused in a sentence, and nothing happens elsewhere."""

import contextlib
import io
import json
import os
import socket
import tarfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from callbacks.image_writer import ImageWriter
from callbacks.tracking import JsonlLogger, RunWandbLogger
from datamodules import LatentShardsDataModule
from datamodules.streaming import open_url, read_shards
from meddiff.cli.main import main, warnings_made_visible
from meddiff.common.errors import UserError, refuse
from meddiff.common.files import atomic_open
from meddiff.common.outside import check_url, file_in, file_part, sample_key, shell, terminal, url_command
from meddiff.common.targets import NotAFile
from meddiff.evaluation.feature_cache import cache_folder
from meddiff.evaluation.ledger import Ledger
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from meddiff.shards.writer import ShardWriter
from tests.builders.audit import watched
from tests.builders.command import call, write_fit
from tests.builders.run_folders import make_run
from tests.builders.shard_samples import make_header, write_folder


def refused(path):
    """No run folder, no traceback: what a refused call leaves."""
    return not path.exists() or not list(path.iterdir())


@pytest.mark.parametrize(
    "url", ["s3://b/'; touch X; 'train-00000.tar", "https://h/$(touch X)", "gs://b/`touch X`", "scp://h/\nx"]
)
def test_a_url_that_would_be_a_command_is_refused_before_training(tmp_path, url):
    write_folder(tmp_path / "shards", {"train": 2})
    with watched() as watch:
        found = LatentShardsDataModule.preflight(shards=url, manifest=str(tmp_path / "shards"))
        with pytest.raises(UserError, match="which no URL does"):
            open_url(url)
    assert watch.seen == watch.started == []
    assert len(found) == 1
    assert "which no URL does" in found[0]


def test_urls_are_words_of_commands_without_a_shell(tmp_path, monkeypatch):
    assert url_command("s3://b/my folder/a;b&c.tar") == ["aws", "s3", "cp", "s3://b/my folder/a;b&c.tar", "-"]
    assert url_command("https://h/x?a=1&b=2;c")[-1] == "https://h/x?a=1&b=2;c"
    for url in ("ftp://h/x", "x", "file:/etc/passwd"):
        with pytest.raises(UserError, match="scheme must be one of"):
            url_command(url)
    program = tmp_path / "aws"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with open_url("s3://b/x; echo y") as stream:
        assert stream.read().decode().splitlines() == ["s3", "cp", "s3://b/x; echo y", "-"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="gsutil, which is not installed"):
        open_url("gs://b/x")
    check_url("hf://datasets/o/n/train-00000.tar")


def test_a_streamed_s3_shard_is_read(tmp_path, monkeypatch):
    manifest = write_folder(tmp_path / "shards", {"train": 3})
    program = tmp_path / "aws"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/shards/${{3##*/}}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    keys = [entry.key for entry in read_shards(["s3://b/train-00000.tar"], 0, manifest)]
    assert keys == ["t0000", "t0001", "t0002"]
    with pytest.raises(UserError, match=r"cannot read shard s3://b/train-00009\.tar"):
        list(read_shards(["s3://b/train-00009.tar"], 0, manifest))


def test_a_tar_key_that_is_a_path_is_refused(tmp_path):
    write_folder(tmp_path, {"train": 1})
    aim = f"{tmp_path}/elsewhere/picture"
    with tarfile.open(tmp_path / "train-00000.tar") as tar:
        members = {one.name.partition(".")[2]: tar.extractfile(one).read() for one in tar}
    with tarfile.open(tmp_path / "train-00000.tar", "w") as tar:
        for suffix, data in members.items():
            member = tarfile.TarInfo(f"{aim}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    values = json.loads((tmp_path / "manifest.json").read_text())
    values["shards"][0]["bytes"] = (tmp_path / "train-00000.tar").stat().st_size
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="cannot be stored: keys have"):
        LatentShardsDataset(tmp_path, "train")
    with pytest.raises(UserError, match="cannot be stored: keys have"):
        list(read_shards([str(tmp_path / "train-00000.tar")], 0, Manifest.read(tmp_path)))
    picture = np.zeros((4, 4, 3), np.uint8)
    trainer = SimpleNamespace(default_root_dir=str(tmp_path / "run"), global_rank=0)
    with pytest.raises(UserError, match="cannot name a file"):
        ImageWriter().write_on_batch_end(
            trainer, None, {"key": [aim], "prompt": ["x"], "image": [picture]}, None, None, 0, 0
        )
    assert not (tmp_path / "elsewhere").exists()


def test_keys_in_an_index_of_others_are_not_believed(tmp_path):
    write_folder(tmp_path, {"train": 2})
    LatentShardsDataset(tmp_path, "train")
    with np.load(tmp_path / ".index.npz") as arrays:
        changed = dict(arrays) | {"keys0": np.frombuffer(b"../../a\n../../b", np.uint8)}
    np.savez(tmp_path / ".index.npz", **changed)
    assert LatentShardsDataset(tmp_path, "train").keys == ["t0000", "t0001"]


@pytest.mark.parametrize(
    "name", ["../victim.tar", "/victim.tar", "a/train-00000.tar", "manifest.json", "notes.tar", 3, None]
)
def test_a_manifest_that_names_another_file_is_refused_and_nothing_is_removed(tmp_path, name):
    folder, victim = tmp_path / "shards", tmp_path / "victim.tar"
    victim.write_text("precious")
    values = write_folder(folder, {"train": 2}).to_json()
    (folder / "notes.tar").write_text("mine")
    old = {**values["shards"][0], "name": name}
    (folder / "manifest.json").write_text(json.dumps(values | {"shards": [old]}))
    with pytest.raises(UserError, match="cannot be the name of a shard"):
        ShardWriter(folder, make_header())
    with pytest.raises(UserError, match="cannot be the name of a shard"):
        LatentShardsDataset(folder, "train")
    assert victim.exists()
    assert (folder / "notes.tar").exists()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../x", "", "a\\b", "a\nb", "x" * 300])
def test_a_run_name_that_leaves_the_folder_of_runs_is_refused(tmp_path, capsys, shards, vae_folder, name):
    config = write_fit(tmp_path / "c.yaml", shards, vae_folder)
    with watched(tmp_path / "runs", *tmp_path.parents[1].glob("*")) as watch:
        code, _, err = call(capsys, "fit", "-c", str(config), f"--name={name}")
    assert code == 2
    (sentence,) = [line for line in err.splitlines() if "leaves the folder of runs" in line]
    assert sentence == err.strip().splitlines()[-1]
    assert watch.seen == []
    assert refused(tmp_path / "runs")


# Devices and links -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_over_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with contextlib.chdir(tmp_path), contextlib.closing(socket.socket(socket.AF_UNIX)) as there:
        there.bind("socket")
    (tmp_path / "folder").mkdir()
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    (tmp_path / "null").symlink_to("/dev/null")
    before = {path.name: os.lstat(path).st_mode for path in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(NotAFile, match="nothing is written over"), atomic_open(tmp_path / name):
            pass
    assert {path.name: os.lstat(path).st_mode for path in tmp_path.iterdir()} == before
    with pytest.raises(OSError, match="nothing is written over"), atomic_open(tmp_path / "fifo"):
        pass  # for who can do without the file
    with atomic_open(tmp_path / "fine", "w") as stream:
        stream.write("x")
    assert (tmp_path / "fine").read_text() == "x"


def test_every_out_leaves_a_pipe_alone(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    os.mkfifo(tmp_path / "fifo")
    for arguments in (
        ("report", str(run), "--out", str(tmp_path / "fifo")),
        ("sample", "--ckpt", str(run), "--prompts", "x", "--out", str(tmp_path / "fifo")),
        ("evaluate", "grounding", "--run", str(run), "--out", str(tmp_path / "fifo")),
    ):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert str(tmp_path / "fifo") in err
        assert (tmp_path / "fifo").is_fifo()


def test_links_in_folders_of_others_are_not_followed_when_writing(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "profile").write_text("precious")
    (folder / "media").mkdir(parents=True)
    for name in ("metrics.jsonl", "ledger.jsonl"):
        (folder / name).symlink_to(outside / "profile")
    for name in ("media/predict", ".statistics", ".partial"):
        (folder / name).symlink_to(outside)
    picture = np.zeros((4, 4, 3), np.uint8)
    trainer = SimpleNamespace(default_root_dir=str(folder), global_rank=0)
    acts = (
        lambda: JsonlLogger(folder).log_metrics({"a": 1.0}, 0),
        lambda: Ledger(folder / "ledger.jsonl", {}, dict),
        lambda: ShardWriter(folder, make_header()),
        lambda: ImageWriter().write_on_batch_end(
            trainer, None, {"key": ["a"], "prompt": ["x"], "image": [picture]}, None, None, 0, 0
        ),
    )
    for act in acts:
        with pytest.raises(UserError, match="link"):
            act()
    assert cache_folder(folder, tmp_path / "out") == tmp_path / "out" / ".statistics"
    assert [path.name for path in outside.iterdir()] == ["profile"]
    assert (outside / "profile").read_text() == "precious"


def test_a_wandb_id_that_is_a_path_is_not_taken(tmp_path):
    for text, expected in (("../../x", None), ("abc-1_2", "abc-1_2"), ("a/b", None)):
        (tmp_path / "wandb_id.txt").write_text(text + "\n")
        assert RunWandbLogger(tmp_path, "name")._wandb_init["id"] == expected


# Shown -----------------------------------------------------------------------------------------------------------------

EVIL = "x\x1b[2J\x9b31m\u202ecod\r\nok: all well"
SHOWN = r"x\x1b[2J\x9b31m\u202ecod\r\nok: all well"


def test_errors_warnings_and_tables_show_controls(capsys, tmp_path):
    assert terminal(EVIL) == SHOWN
    assert terminal(EVIL, newlines=True) == SHOWN.replace(r"\n", "\n")
    code, out, err = call(capsys, "report", EVIL)
    assert code == 2
    assert SHOWN in err
    assert len(err.splitlines()) == 1
    with warnings.catch_warnings(record=True) as caught, warnings_made_visible():
        warnings.simplefilter("always")
        warnings.warn("a label: \x1b[2J", UserWarning, stacklevel=1)
        warnings.warn("plain", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["a label: \\x1b[2J", "plain"]
    run = make_run(tmp_path / EVIL.replace("/", ""))
    code, out, err = call(capsys, "report", str(run))
    assert code == 0
    assert SHOWN in out
    assert len(out.splitlines()) == 1
    assert "\x1b" not in (run / "report.html").read_text(encoding="utf-8")


def test_several_problems_are_a_line_each_and_names_make_none():
    with pytest.raises(UserError) as caught:
        refuse(["first", "second with a\nbreak"])
    assert caught.value.args == ("first", "second with a\nbreak")
    assert str(caught.value) == "first\n       second with a\nbreak"


def test_each_of_several_problems_is_printed_on_a_line(tmp_path, capsys):
    config = write_fit(tmp_path / "c.yaml", Path("no\nwhere"), Path("no\nvae"))
    code, _, err = call(capsys, "fit", "-c", str(config))
    assert code == 2
    first, *others = err.strip().splitlines()
    assert first.startswith("error: ")
    assert others
    assert all(line.startswith("       ") for line in others)
    assert r"no\nwhere" in err
    assert r"no\nvae" in err


def test_an_unforeseen_error_shows_controls(monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(SystemExit):
        main(["--help"])
    sys.excepthook(ValueError, ValueError("\x1b[2J"), None)
    assert capsys.readouterr().err == "ValueError: \\x1b[2J\n"


def test_commands_to_copy_are_quoted():
    assert shell("runs/a b; touch x") == "'runs/a b; touch x'"
    assert shell("runs/a") == "runs/a"


def test_small_parts():
    assert sample_key("p10_s1-2") == "p10_s1-2"
    for bad in ("", "a.b", "a b", "__a", "a\x1b", "a\u202eb", "x" * 81):
        with pytest.raises(UserError, match="cannot be stored"):
            sample_key(bad)
    assert file_part("Lung Opacity") == "lung_opacity"
    assert file_part("A/B") != file_part("A B") != file_part("A\\B")
    assert file_in("d", "k#1.png").name == "k#1.png"


def test_paths_too_long_are_told_in_a_sentence(capsys):
    code, _, err = call(capsys, "report", "x" * 300)
    assert code == 2
    assert "File name too long" in err
