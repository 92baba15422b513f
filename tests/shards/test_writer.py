"""The shard writer: bytes that depend on the samples alone, kill and continue, refusals."""

import dataclasses
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.shards.manifest import Manifest
from meddiff.shards.one_shard import write_shard
from meddiff.shards.planning import plan_shards
from meddiff.shards.writer import ShardWriter
from tests.builders.children import environment
from tests.builders.shard_samples import make_header, make_pair, make_pairs, write_folder

SIZES = {"train": 12, "val": 5, "fidelity": 3}


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_runs_give_the_same_bytes_and_other_samples_do_not(tmp_path):
    write_folder(tmp_path / "a", SIZES)
    write_folder(tmp_path / "b", SIZES)
    write_folder(tmp_path / "c", SIZES | {"val": 4})
    a, b, c = (folder_bytes(tmp_path / name) for name in "abc")
    assert a == b
    assert sorted(a) == [
        "fidelity-00000.tar", "manifest.json", "train-00000.tar", "train-00001.tar", "train-00002.tar", "val-00000.tar",
    ]  # fmt: skip
    assert a["val-00000.tar"] != c["val-00000.tar"]


def test_any_order_and_any_writer_gives_the_same_folder(tmp_path):
    manifest = write_folder(tmp_path / "a", {"train": 12})
    pairs = {sample.key: (sample, moments) for sample, moments in make_pairs("train", 12)}
    first, second = (ShardWriter(tmp_path / "b", make_header(), 5) for _ in range(2))
    plans = first.plan("train", list(pairs)[::-1])
    for number, plan in reversed(list(enumerate(plans))):
        (first, second)[number % 2].write_planned(plan, [pairs[key] for key in plan.keys])
    assert ShardWriter(tmp_path / "b", make_header(), 5).finish(plans) == manifest
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_manifest_says_what_is_there(tmp_path):
    manifest = write_folder(tmp_path, SIZES)
    assert Manifest.read(tmp_path) == manifest
    assert {name: count["samples"] for name, count in manifest.counts.items()} == SIZES
    assert manifest.counts["train"]["labels"] == {"Edema": 8, "No Finding": 4, "Pleural Effusion": 4}
    assert [shard.samples for shard in manifest.split("train")] == [5, 5, 2]
    for shard in manifest.shards:
        data = (tmp_path / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_members_hold_the_sample(tmp_path):
    write_folder(tmp_path, {"fidelity": 3})
    sample, moments = make_pair("fidelity", 1)
    with tarfile.open(tmp_path / "fidelity-00000.tar") as tar:
        infos = tar.getmembers()
        read = {info.name: tar.extractfile(info).read() for info in infos}
    assert [info.name for info in infos[5:10]] == [
        f"f0001.{suffix}" for suffix in ("json", "latent.npy", "mask.pleural_effusion.png", "mask.tube.png", "png")
    ]
    assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in infos} == {(0, 0, 0, "", 0o644)}
    stored = np.load(io.BytesIO(read["f0001.latent.npy"]), allow_pickle=False)
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, moments.astype(np.float16))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(read["f0001.png"]))), sample.image)
    mask = np.asarray(Image.open(io.BytesIO(read["f0001.mask.pleural_effusion.png"])))
    np.testing.assert_array_equal(mask > 0, sample.masks["Pleural Effusion"])
    metadata = json.loads(read["f0001.json"])
    assert set(metadata) == {
        "impression", "captions", "phrases", "labels", "view", "patient_id", "split", "width", "height", "boxes",
        "mask_names", "attributes", "source",
    }  # fmt: skip
    assert metadata["impression"] == sample.impression
    assert metadata["mask_names"] == {"pleural_effusion": "Pleural Effusion", "tube": "tube"}
    assert metadata["boxes"] == [{"label": "Edema", "x": 3.0, "y": 4.0, "w": 10.0, "h": 8.0}]
    assert metadata["phrases"][0]["boxes"] == metadata["boxes"]
    assert (metadata["width"], metadata["height"]) == sample.image.shape[::-1]


def test_training_splits_carry_no_pixels(tmp_path):
    write_folder(tmp_path, {"train": 2})
    with tarfile.open(tmp_path / "train-00000.tar") as tar:
        assert [name.partition(".")[2] for name in tar.getnames()] == ["json", "latent.npy"] * 2


def test_webdataset_reads_them(tmp_path):
    write_folder(tmp_path, {"train": 7})
    urls = [str(tmp_path / f"train-0000{k}.tar") for k in range(2)]
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"t{number:04d}" for number in range(7)]
    np.testing.assert_array_equal(samples[3]["latent.npy"], make_pair("train", 3)[1].astype(np.float16))


KILLED = """
import os, signal, sys
from tests.builders.shard_samples import make_header, make_pairs
from meddiff.shards.writer import ShardWriter
writer = ShardWriter(sys.argv[1], make_header(), 5)
pairs = {s.key: (s, m) for s, m in make_pairs("train", 23)}
def make(keys):
    for key in keys:
        if key == "t0013":
            os.kill(os.getpid(), signal.SIGKILL)   # in the middle of the third shard
        yield pairs[key]
for _ in writer.write_split("train", list(pairs), make):
    pass
"""


def test_killed_and_continued_gives_the_same_folder(tmp_path):
    write_folder(tmp_path / "whole", {"train": 23})
    out = tmp_path / "killed"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    assert sorted(path.name for path in out.glob("*.tar")) == ["train-00000.tar", "train-00001.tar"]
    pairs = {sample.key: (sample, moments) for sample, moments in make_pairs("train", 23)}
    made: list[str] = []

    def make(keys):
        made.extend(keys)
        return [pairs[key] for key in keys]

    writer = ShardWriter(out, make_header(), 5)
    assert [new for _, new in writer.write_split("train", list(pairs), make)] == [False, False, True, True, True]
    writer.finish()
    assert made == list(pairs)[10:]
    assert folder_bytes(out) == folder_bytes(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_only_a_broken_shard_is_written_again(tmp_path, harm):
    write_folder(tmp_path, {"train": 12})
    before = folder_bytes(tmp_path)
    path = tmp_path / "train-00001.tar"
    data = bytearray(before[path.name])
    data[700] ^= 1
    {"cut": lambda: path.write_bytes(before[path.name][:-9000]), "flip": lambda: path.write_bytes(data),
     "remove": path.unlink}[harm]()  # fmt: skip
    kept = (tmp_path / "train-00000.tar").stat().st_mtime_ns
    write_folder(tmp_path, {"train": 12})
    assert folder_bytes(tmp_path) == before
    assert (tmp_path / "train-00000.tar").stat().st_mtime_ns == kept


def test_a_folder_of_other_options_is_refused_not_overwritten(tmp_path):
    write_folder(tmp_path, {"train": 5})
    before = folder_bytes(tmp_path)
    with pytest.raises(UserError, match=r"another options.*seed.*choose another --out"):
        ShardWriter(tmp_path, make_header(options={"seed": 1}))
    assert folder_bytes(tmp_path) == before
    ShardWriter(tmp_path, make_header(command="the same, spelt otherwise"))


def test_an_unfinished_folder_of_other_options_is_refused(tmp_path):
    ShardWriter(tmp_path, make_header(), 5).write("train", make_pairs("train", 5))
    with pytest.raises(UserError, match="another resolution"):
        ShardWriter(tmp_path, make_header(resolution=64), 5)


def test_a_call_that_failed_before_its_first_shard_holds_nobody(tmp_path):
    ShardWriter(tmp_path / "out", make_header(resolution=64), 5)
    write_folder(tmp_path / "out", {"train": 5})
    write_folder(tmp_path / "fresh", {"train": 5})
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "fresh")


def test_a_smaller_cohort_leaves_no_old_shards(tmp_path):
    write_folder(tmp_path, {"train": 12})
    write_folder(tmp_path, {"train": 6})
    assert sorted(folder_bytes(tmp_path)) == ["manifest.json", "train-00000.tar", "train-00001.tar"]


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "a b", "__meta", "x" * 81])
def test_bad_keys_are_refused(key):
    with pytest.raises(UserError, match="cannot be stored"):
        plan_shards("train", ["ok", key], 4)


def test_duplicate_keys_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'b' occurs twice"):
        plan_shards("train", ["b", "a", "b"], 4)
    pair = make_pair("train", 0)
    with pytest.raises(UserError, match="occurs twice"):
        write_shard(tmp_path / "train-00000.tar", [pair, pair])
    assert list(tmp_path.iterdir()) == []  # neither the shard nor a temporary file


def test_bad_samples_are_refused(tmp_path):
    sample, moments = make_pair("train", 0)
    path = tmp_path / "train-00000.tar"
    with pytest.raises(UserError, match="not finite"):
        write_shard(path, [(sample, moments * 1e6)])
    with pytest.raises(UserError, match=r"shape \(4, 4, 4\), the manifest says \(8, 4, 4\)"):
        write_shard(path, [(sample, moments[:4])], (8, 4, 4))
    with pytest.raises(UserError, match="is of split 'train'"):
        write_shard(tmp_path / "val-00000.tar", [(sample, moments)])
    with pytest.raises(UserError, match="comes after"):
        write_shard(path, make_pairs("train", 2)[::-1])
    clash = dataclasses.replace(
        make_pair("fidelity", 0)[0], masks={"a b": np.ones((2, 2), bool)} | {"a-b": np.ones((2, 2), bool)}
    )
    with pytest.raises(UserError, match="share a file name"):
        write_shard(tmp_path / "fidelity-00000.tar", [(clash, moments)])


def test_means_are_stored_as_means(tmp_path):
    manifest = write_folder(tmp_path, {"train": 2}, header=make_header(latent="mean"))
    assert manifest.stored_shape == (4, 4, 4)


def test_shards_that_do_not_say_how_they_were_made_are_not_taken(tmp_path):
    write_folder(tmp_path, {"train": 2})
    (tmp_path / "manifest.json").unlink()
    notes = tmp_path / ".partial"
    notes.mkdir(exist_ok=True)
    (notes / "train-00000.tar.json").write_text("{}")
    (notes / "header.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="does not say how they were made"):
        ShardWriter(tmp_path, make_header(), 5)
    (notes / "header.json").write_text('{"cut')
    with pytest.raises(UserError, match="does not say how they were made"):
        ShardWriter(tmp_path, make_header(), 5)
