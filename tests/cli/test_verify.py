"""``lightning doctor --verify``: files on the disk against the sums that were written with them."""

import shutil
from pathlib import Path

import pytest
import torch

from meddiff.common.check_sums import sum_file
from meddiff.runs.checkpoints import write_checkpoint
from tests.builders.command import call


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with two checkpoints, a link, and one that an older version wrote without a sum."""
    folder = tmp_path / "run" / "checkpoints"
    for file in (folder / "step-00000002.ckpt", folder / "val" / "loss=0.1.ckpt"):
        write_checkpoint({"global_step": 2, "state_dict": {"a": torch.zeros(5000)}}, file)
    (folder / "last.ckpt").symlink_to("step-00000002.ckpt")
    torch.save({"global_step": 1}, folder / "old.ckpt")
    return folder.parent


def change(file: Path) -> None:
    """One byte in the middle: the file still loads."""
    with file.open("rb+") as stream:
        stream.seek(file.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))


def test_whole_files_and_those_without_a_sum(run, shards, capsys):
    code, out, err = call(capsys, "doctor", "--verify", str(run), str(shards))
    assert code == 0, err
    lines = out.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 2 + len(list(shards.glob("*.tar")))
    assert any(line.endswith("old.ckpt: has no check sum") for line in lines)
    assert "last.ckpt" not in out
    assert lines[-1].endswith("0 not, 1 without a check sum")


def test_one_changed_byte_is_found_in_a_checkpoint(run, capsys):
    file = run / "checkpoints" / "val" / "loss=0.1.ckpt"
    change(file)
    assert torch.load(file, weights_only=True)["global_step"] == 2
    code, out, err = call(capsys, "doctor", "--verify", str(run))
    assert code == 2
    assert f"BAD  {file}: differs from its check sum" in out
    assert err.startswith("error: 1 of 3 files are not what was written")
    assert err.count("\n") == 1
    assert call(capsys, "doctor", "--verify", str(file))[0] == 2
    assert call(capsys, "doctor", "--verify", str(run / "checkpoints" / "last.ckpt"))[0] == 0


@pytest.mark.parametrize("what", ["changed", "cut", "missing"])
def test_shards_are_compared_with_their_manifest(what, shards, tmp_path, capsys):
    folder = shutil.copytree(shards, tmp_path / "shards")
    file = folder / "train-00000.tar"
    if what == "changed":
        change(file)
    elif what == "cut":
        file.write_bytes(file.read_bytes()[:-512])
    else:
        file.unlink()
    code, out, err = call(capsys, "doctor", "--verify", str(folder))
    assert code == 2
    assert out.count("BAD ") == 1
    assert "train-00000.tar" in err


def test_a_sum_without_its_file_and_one_that_cannot_be_read(run, capsys):
    (run / "checkpoints" / "step-00000002.ckpt").unlink()
    sum_file(run / "checkpoints" / "val" / "loss=0.1.ckpt").write_text("???")
    code, out, _ = call(capsys, "doctor", "--verify", str(run))
    assert code == 2
    assert "step-00000002.ckpt: missing" in out
    assert "loss=0.1.ckpt.sha256 cannot be read" in out


def test_nothing_to_verify_is_said(tmp_path, capsys):
    assert "Nothing at" in call(capsys, "doctor", "--verify", str(tmp_path / "none"))[2]
    code, _, err = call(capsys, "doctor", "--verify", str(tmp_path))
    assert code == 2
    assert "no check sums" in err
    assert call(capsys, "doctor", "--verify")[0] == 2
