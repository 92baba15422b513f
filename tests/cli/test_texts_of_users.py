"""What people write and save elsewhere: other encodings, `~`, a section that stands twice."""

from pathlib import Path

import pytest
import yaml

from meddiff.cli.arguments import read_yaml, said_twice
from meddiff.cli.parsing import SentenceParser
from meddiff.common.errors import UserError
from meddiff.common.text_files import read_text
from tests.builders.command import HERE, call, exit_code
from tests.builders.folder_tree import make_folder

TWICE = """\
name: t
model:
  init_args:
    learning_rate: 1.0e-4
data:
  init_args: {batch_size: 4}
model:
  init_args:
    warmup_steps: 7
"""


# ---- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
def test_another_encoding_is_said_at_every_door(encoding, tmp_path, capsys):
    prompts, config = tmp_path / "prompts.txt", tmp_path / "config.yaml"
    prompts.write_bytes("Großer Erguss.\n".encode(encoding))
    config.write_bytes("name: größer\n".encode(encoding))
    for arguments, file in (
        (("sample", "--ckpt", str(tmp_path), "--prompts_file", str(prompts)), prompts),
        (("fit", "-c", str(config)), config),
        (("evaluate", "all", "--ckpt", str(tmp_path), "-c", str(config)), config),
    ):
        code, _, err = call(capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert f"{file} is not text in UTF-8" in err


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfLarge pleural effusion.\r\nEdema.\r\n")
    assert read_text(file).splitlines() == ["Large pleural effusion.", "Edema."]
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfname: t\n")
    assert read_yaml(tmp_path / "c.yaml") == {"name": "t"}


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_text(tmp_path)


# ---- a thing said twice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (TWICE, "`model` twice (lines 2 and 7)"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "`a.b` twice (lines 2 and 4)"),
        ("a:\n- {x: 1}\n- {x: 1, x: 2}\n", "`a.x` twice (lines 3 and 3)"),
        ('{"a": 1, "a": 2}', "`a` twice (lines 1 and 1)"),
        ("a: {b: 1}\nc: [{b: 1}, {b: 2}]\n", None),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n  a: 2\n", None),
        ("", None),
    ],
)
def test_keys_that_stand_twice(text, where):
    assert said_twice(yaml.compose(text, Loader=yaml.SafeLoader)) == where


def test_no_command_takes_the_last_of_two_sections(tmp_path, capsys):
    file, base = tmp_path / "twice.yaml", tmp_path / "b.yaml"
    file.write_text(TWICE)
    base.write_text("base: twice.yaml\n")
    inline = '{"class_path": "a.B", "init_args": {"rate": 1, "rate": 2}}'
    for arguments in (
        ("fit", "-c", str(file)),
        ("fit", "-c", str(base)),
        ("validate", "--config", str(file)),
        ("evaluate", "all", "--ckpt", str(tmp_path), "-c", str(file)),
        ("fit", "-c", "configs/quickstart.yaml", "--model", inline),
        ("fit", "-c", "configs/quickstart.yaml", f"--model={inline}"),
    ):
        code, _, err = call(capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert "twice" in err
        assert "join them" in err


# ---- ~ --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "home"


def test_prepare_reads_from_home_and_writes_there(home, vae_folder, capsys):
    make_folder(home / "ds")
    code, _, err = call(capsys, "prepare", "folder", "--root=~/ds", "--out=~/shards", "--vae", str(vae_folder), *HERE)
    assert code == 0, err
    assert (home / "shards" / "manifest.json").is_file()
    assert not list(Path.cwd().iterdir())


def test_config_flags_and_base_of_a_fit(home, capsys):
    (home / "base.yaml").write_text("data: {init_args: {shards: ~/shards, splits_from: {grounding: ~/other}}}\n")
    (home / "c.yaml").write_text("base: [configs/quickstart.yaml, ~/base.yaml]\nruns: ~/runs\n")
    code, _, err = call(
        capsys, "fit", "-c=~/c.yaml", "--data", "datamodules.LatentShardsDataModule", "--trainer.max_steps", "1"
    )
    assert code == 2
    assert f"no latent shards at {home}/shards" in err
    code, _, err = call(capsys, "fit", "--resume=~/runs/none")
    assert (code, f"No checkpoint at {home}/runs/none" in err) == (2, True)


def test_own_verbs(home, capsys):
    for arguments, words in (
        (("report", "~/none"), "home/none"),
        (("tables", "~/none", "--out=~/t"), "home/none"),
        (("sample", "--ckpt=~/none", "--prompts", "x"), "home/none"),
    ):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert words in err, err


def test_a_tilde_in_a_text_stays(home):
    parser = SentenceParser()
    parser.add_argument("--prompts", type=str, nargs="+")
    given = ["~5 cm mass", "mass, ~/2 cm", "a~b"]
    assert parser.parse_args(["--prompts", *given]).prompts == given
    assert exit_code("fit", "-c", "~nobody-of-this-name/c.yaml") == 2
