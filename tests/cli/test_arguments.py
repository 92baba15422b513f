"""The command line before jsonargparse: files first, bases before them, --resume spelled out."""

import os
from pathlib import Path

import pytest

from meddiff.cli.arguments import expand, split_configs, with_bases
from meddiff.common.errors import UserError
from meddiff.runs.checkpoints import write_checkpoint


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.yaml").write_text("trainer:\n  max_steps: 1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text("base: ../a.yaml\ntrainer:\n  max_steps: 2\n")
    (tmp_path / "sub" / "c.yaml").write_text("base: [b.yaml]\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "f.yaml", "--model.x", "1"],
        ["-c=f.yaml", "--model.x", "1"],
        ["-cf.yaml", "--model.x", "1"],
        ["--config", "f.yaml", "--model.x", "1"],
        ["--model.x", "1", "--config=f.yaml"],
    ],
)
def test_every_spelling_of_a_config(arguments):
    assert split_configs(arguments) == (["f.yaml"], ["--model.x", "1"])


def test_flags_follow_files_whatever_the_order(files):
    file = str(files / "a.yaml")
    assert expand(["--trainer.max_steps", "9", "-c", file]) == ["-c", file, "--trainer.max_steps", "9"]


def test_bases_come_first_and_are_relative_to_their_file(files):
    order = [str(files / "sub" / ".." / "a.yaml"), str(files / "sub" / "b.yaml"), str(files / "sub" / "c.yaml")]
    assert [str(path) for path in with_bases(files / "sub" / "c.yaml")] == order


def test_a_base_in_configs_is_the_suite_s_own_unless_it_is_beside(files):
    (files / "sub" / "mine.yaml").write_text("base: configs/debug/bare.yaml\n")
    found = with_bases(files / "sub" / "mine.yaml")
    assert [Path(file).name for file in found] == ["quickstart.yaml", "bare.yaml", "mine.yaml"]
    (files / "sub" / "configs" / "debug").mkdir(parents=True)
    (files / "sub" / "configs" / "debug" / "bare.yaml").write_text("name: other\n")
    beside = str(files / "sub" / "configs" / "debug" / "bare.yaml")
    assert with_bases(files / "sub" / "mine.yaml") == [beside, str(files / "sub" / "mine.yaml")]
    (files / "sub" / "lost.yaml").write_text("base: configs/none.yaml\n")
    with pytest.raises(UserError, match=r"No config file at configs/none\.yaml"):
        with_bases(files / "sub" / "lost.yaml")


def test_circular_base_is_refused(files):
    (files / "a.yaml").write_text("base: sub/b.yaml\n")
    with pytest.raises(UserError, match="its own base"):
        with_bases(files / "sub" / "b.yaml")


def test_resume_names_config_and_the_checkpoint_with_the_most_steps(tmp_path):
    run = tmp_path / "runs" / "x" / "1"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("name: x\n")
    for steps in (10, 2):
        content = {"global_step": steps, "state_dict": {}, "optimizer_states": []}
        write_checkpoint(content, run / "checkpoints" / f"step-{steps:08d}.ckpt")
    os.utime(run / "checkpoints" / "step-00000010.ckpt", (1, 1))
    expanded = expand(["--resume", str(run), "--trainer.max_steps", "5"])
    newest = str(run / "checkpoints" / "step-00000010.ckpt")
    assert expanded == ["-c", str(run / "config.yaml"), "--ckpt_path", newest, "--trainer.max_steps", "5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-c"], "needs a file"),
        (["-c", "missing.yaml"], "No config file"),
        (["--resume"], "needs a run folder"),
        (["--resume", "nowhere"], "No checkpoint"),
        (["--resume", "nowhere", "--ckpt_path", "x"], "already names"),
    ],
)
def test_bad_command_lines_get_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        expand(arguments)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_files_that_are_no_mapping(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"YAML|mapping"):
        with_bases(tmp_path / "bad.yaml")
