"""Files that are whole or absent: after a kill, on a full disk, beside a second writer."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from meddiff.common.check_sums import digest_of, read_sum, sum_file, write_sum
from meddiff.common.files import atomic_open, no_room, remove_leftovers
from tests.builders.children import environment

WRITER = """
import sys
from meddiff.common.files import atomic_open
with atomic_open(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_stays(tmp_path):
    target = tmp_path / "step-00000004.ckpt"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".step-00000004.ckpt.")
    assert remove_leftovers(tmp_path) == []
    writer.kill()
    writer.communicate()
    assert half.exists()

    with atomic_open(tmp_path / "other.json", "w") as stream:  # the next process that writes here
        stream.write("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_hidden_files_of_others_stay(tmp_path):
    others = [".notes.part", ".a.12345678", "b.12345678.part", ".c.TOOLONGER.part"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".link.abcdefgh.part").symlink_to(tmp_path / ".notes.part")
    assert remove_leftovers(tmp_path) == []
    assert (tmp_path / ".notes.part").read_text() == "mine"


@pytest.fixture
def small_files():
    """No file may have more than a megabyte: what a full disk looks like to one who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file_and_keeps_the_older_one(tmp_path, small_files):
    target = tmp_path / "table.csv"
    with atomic_open(target, "w") as stream:
        stream.write("old")
    with pytest.raises(OSError, match=r"table\.csv") as refused, atomic_open(target) as stream:
        stream.write(bytes(2_000_000))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    sentence = no_room(refused.value)
    assert sentence is not None
    assert "table.csv" in str(sentence)
    assert no_room(PermissionError(13, "no")) is None


def test_a_name_as_long_as_names_may_be(tmp_path):
    target = tmp_path / ("ö" * 120 + ".json")
    with atomic_open(target, "w") as stream:
        stream.write("x")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("name", ["a.ckpt", "val/loss=0.1 of b.ckpt", "line\nbreak.ckpt", "back\\slash.ckpt"])
def test_check_sums_are_those_that_sha256sum_reads(name, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"content")
    assert read_sum(file) is None
    write_sum(file, digest_of(file))
    assert read_sum(file) == digest_of(file)
    command = ["sha256sum", "--strict", "-c", sum_file(file).name]
    checked = subprocess.run(command, cwd=file.parent, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    sum_file(file).write_text("")
    assert read_sum(file) == ""


def test_the_temporary_file_lies_beside_the_target_whatever_tmpdir_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/dev/null/no-such-folder")
    with atomic_open(tmp_path / "deep" / "file") as stream:
        assert Path(str(tmp_path / "deep")) == next((tmp_path / "deep").iterdir()).parent
        stream.write(b"x")
    assert (tmp_path / "deep" / "file").read_bytes() == b"x"
