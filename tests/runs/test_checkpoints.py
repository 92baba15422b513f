"""Which checkpoint of a folder is taken: the most steps that load whole; and how one is written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from meddiff.common.check_sums import digest_of, read_sum, sum_file
from meddiff.common.errors import UserError
from meddiff.runs.checkpoints import broken, find_checkpoint, is_own_checkpoint, read_checkpoint, write_checkpoint
from tests.builders.children import environment


def save(file: Path, steps: int, **other: object) -> Path:
    """A small checkpoint with the parts that Lightning writes, in its order."""
    content = {
        "epoch": 0,
        "global_step": steps,
        "state_dict": {"a": torch.full((4000,), float(steps))},
        "optimizer_states": [],
        "hyper_parameters": {},
    }
    write_checkpoint({**content, **other}, file)
    return file


@pytest.fixture
def folder(tmp_path) -> Path:
    """checkpoints/ of a run with steps 2 and 10; the older one has the newer time."""
    folder = tmp_path / "run" / "checkpoints"
    save(folder / "step-00000010.ckpt", 10)
    save(folder / "step-00000002.ckpt", 2)
    os.utime(folder / "step-00000010.ckpt", (1, 1))
    return folder


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1000)


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def web_page(file: Path) -> None:
    file.write_text("<html>404</html>")


def pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def weights_alone(file: Path) -> None:
    torch.save({"global_step": 99, "weight": torch.ones(3)}, file)


def no_zip(file: Path) -> None:
    torch.save({"global_step": 99, "state_dict": {}}, file, _use_new_zipfile_serialization=False)


def dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone.ckpt")


def in_pieces(file: Path) -> None:
    """A folder whose last part is not there yet."""
    file.unlink()
    file.mkdir()
    torch.save({"global_step": 99}, file / "meta.pt")


DAMAGES = [cut, half, empty, web_page, pointer, weights_alone, no_zip, dangling, in_pieces]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_not_whole_is_passed_over_in_one_sentence(damage: Callable[[Path], None], folder, capsys):
    damage(save(folder / "step-00000012.ckpt", 12))
    assert find_checkpoint(folder.parent) == folder / "step-00000010.ckpt"
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "step-00000012.ckpt" in err
    assert "step-00000010.ckpt" in err
    assert find_checkpoint(folder.parent, to_train=True) == folder / "step-00000010.ckpt"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_nothing_whole_is_said_with_the_reason(damage: Callable[[Path], None], tmp_path):
    damage(save(tmp_path / "checkpoints" / "step-00000012.ckpt", 12))
    with pytest.raises(UserError, match=r"No whole checkpoint .*step-00000012\.ckpt \("):
        find_checkpoint(tmp_path)


def test_steps_count_not_names_nor_times(folder, capsys):
    assert find_checkpoint(folder.parent) == folder / "step-00000010.ckpt"
    save(folder / "step-00000001.ckpt", 11)
    assert find_checkpoint(folder.parent) == folder / "step-00000001.ckpt"
    assert find_checkpoint(folder) == folder / "step-00000001.ckpt"
    assert capsys.readouterr().err == ""


def test_a_link_gives_way_to_its_file_and_files_lie_at_any_depth(folder):
    (folder / "last.ckpt").symlink_to("step-00000010.ckpt")
    assert find_checkpoint(folder.parent) == folder / "step-00000010.ckpt"
    nested = save(folder / "step=14-val" / "loss=0.045.ckpt", 14)
    assert find_checkpoint(folder.parent) == nested
    # what SLURM's requeue writes lies in the run folder itself
    assert find_checkpoint(save(folder.parent / "hpc_ckpt_1.ckpt", 15).parent) == folder.parent / "hpc_ckpt_1.ckpt"


def test_a_folder_of_runs_is_no_run(folder, tmp_path):
    (folder.parent / "config.yaml").write_text("name: x\n")
    with pytest.raises(UserError, match="No checkpoint at"):
        find_checkpoint(tmp_path)


def test_weights_without_an_optimiser_are_drawn_from_and_not_trained_on(folder, capsys):
    torch.save({"global_step": 20, "state_dict": {}, "hyper_parameters": {}}, folder / "weights.ckpt")
    assert find_checkpoint(folder.parent) == folder / "weights.ckpt"
    assert find_checkpoint(folder.parent, to_train=True) == folder / "step-00000010.ckpt"
    assert "weights.ckpt (has no optimizer_states)" in capsys.readouterr().err


def test_only_the_first_process_tells(folder, capsys, monkeypatch):
    empty(save(folder / "step-00000012.ckpt", 12))
    monkeypatch.setenv("RANK", "1")
    find_checkpoint(folder.parent)
    assert capsys.readouterr().err == ""


def test_a_damaged_file_is_told_with_the_whole_one_beside_it(folder):
    file = save(folder / "step-00000012.ckpt", 12)
    assert broken(file) is None
    cut(file)
    assert str(folder / "step-00000010.ckpt") in str(broken(file))
    with pytest.raises(UserError, match=r"step-00000012\.ckpt is not .*step-00000010\.ckpt"):
        read_checkpoint(file)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from meddiff.common.check_sums import digest_of, read_sum
from meddiff.runs.checkpoints import broken, write_checkpoint
file, draw, halves, sums = Path(sys.argv[1]), random.Random(0), 0, 0
for number in range(25):
    child = os.fork()
    if not child:
        while True:
            write_checkpoint({"global_step": number, "state_dict": {"a": torch.rand(200_000)}}, file)
    time.sleep(draw.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if file.exists():
        assert broken(file) is None
        known = read_sum(file)
        assert known in (None, digest_of(file)), known
        sums += known is not None
    halves += bool(list(file.parent.glob(".file.ckpt.????????.part")))
print(halves, sums)
"""


def test_killed_at_any_moment_there_is_a_whole_file_and_no_wrong_check_sum(tmp_path):
    file = tmp_path / "file.ckpt"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(file)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    halves, sums = map(int, done.stdout.split())
    print(f"{halves} of 25 kills left a temporary file, {sums} a check sum")
    assert sums
    save(file, 1)
    assert read_sum(file) == digest_of(file)
    assert sum_file(file).is_file()


class Callback:
    """What Lightning kept in the files of 2022; never made again."""


def original(file: Path) -> None:
    """As Lightning wrote Stable Diffusion's own training."""
    state = {"model.diffusion_model.time_embed.0.weight": torch.ones(2), "cond_stage_model.x": torch.ones(2)}
    torch.save({"global_step": 9, "hyper_parameters": {}, "callbacks": {Callback: {}}, "state_dict": state}, file)


def original_alone(file: Path) -> None:
    torch.save({"state_dict": {"first_stage_model.encoder.conv_in.weight": torch.ones(2)}}, file)


def of_before_zip(file: Path) -> None:
    torch.save({"model.diffusion_model.x": torch.ones(2)}, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("change", "own"),
    [
        (original, False),
        (original_alone, False),
        (of_before_zip, False),
        (weights_alone, False),
        (cut, True),
        (empty, True),
    ],
)
def test_a_checkpoint_of_this_suite_is_told_from_others_by_what_is_in_it(tmp_path, change, own):
    """By texts in the pickle alone: the tensors are taken out of the file and it still tells."""
    file = save(tmp_path / "model.ckpt", 3)
    assert is_own_checkpoint(file)
    change(file)
    assert is_own_checkpoint(file) == own
    other = save(tmp_path / "other.ckpt", 3).rename(tmp_path / "other.safetensors")
    assert not is_own_checkpoint(other)


def test_telling_reads_no_tensor(tmp_path):
    file = save(tmp_path / "model.ckpt", 3)
    content = file.read_bytes()
    floats = torch.full((4000,), 3.0).numpy().tobytes()
    assert floats in content
    file.write_bytes(content.replace(floats, b"?" * len(floats)))  # their check sum in the archive is wrong now
    assert is_own_checkpoint(file)
