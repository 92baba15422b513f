"""The offset index: the same bytes as tarfile and webdataset give, and refusals of broken tars."""

import multiprocessing
import os
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

import meddiff.shards.index as shard_index
from meddiff.common.errors import UserError
from meddiff.shards.index import CACHE_NAME, ShardIndex, ShardReader, load_tables, scan_tar
from meddiff.shards.manifest import Manifest
from tests.builders.shard_samples import write_folder


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path, {"train": 12, "fidelity": 3})
    return tmp_path


def open_index(folder, split="train", **options):
    return ShardIndex(folder, Manifest.read(folder), split, **options)


def tar_contents(folder, split):
    contents = {}
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            contents |= {info.name: tar.extractfile(info).read() for info in tar}
    return contents


@pytest.mark.parametrize("split", ["train", "fidelity"])
def test_reads_what_tarfile_reads(folder, split):
    index = open_index(folder, split)
    reader = ShardReader(index)
    ours = {
        f"{key}.{suffix}": reader.read(number, suffix)
        for number, key in enumerate(index.keys)
        for suffix in index.suffixes(number)
    }
    assert ours == tar_contents(folder, split)
    assert len(ours) == {"train": 24, "fidelity": 15}[split]


def test_reads_what_webdataset_reads(folder):
    index = open_index(folder)
    reader = ShardReader(index)
    urls = sorted(str(path) for path in folder.glob("train-*.tar"))
    for number, sample in enumerate(wds.WebDataset(urls, shardshuffle=False)):
        assert sample["__key__"] == index.keys[number]
        for suffix in ("json", "latent.npy"):
            assert sample[suffix] == reader.read(number, suffix)


def test_cache_is_used_refreshed_and_not_needed(folder, monkeypatch):
    scans = []
    monkeypatch.setattr(shard_index, "scan_tar", lambda path: scans.append(path.name) or scan_tar(path))
    keys = open_index(folder).keys
    assert len(scans) == 3
    open_index(folder, "fidelity")
    assert len(scans) == 4
    first, second = open_index(folder), open_index(folder, cache=False)
    assert len(scans) == 7  # only the one without a cache looked again
    assert first.keys == second.keys == keys
    for suffix, column in first.columns.items():  # places in a file: whole numbers
        np.testing.assert_array_equal(column, second.columns[suffix])
    os.utime(folder / "train-00001.tar", ns=(1, 1))
    open_index(folder)
    assert scans[7:] == ["train-00001.tar"]
    (folder / CACHE_NAME).write_bytes(b"PK\x03\x04 broken")
    assert open_index(folder).keys == keys
    assert len(scans) == 11


def test_read_only_folder_works(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(shard_index, "atomic_open", refuse)
    assert len(open_index(folder)) == 12
    assert not (folder / CACHE_NAME).exists()


def test_cache_holds_no_pickles(folder):
    open_index(folder)
    with np.load(folder / CACHE_NAME, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


@pytest.mark.parametrize("cut", [1, 513, 1024, 9500])
def test_truncated_tar_is_named(folder, cut):
    path = folder / "train-00001.tar"
    size = path.stat().st_size
    os.truncate(path, size - cut)
    with pytest.raises(UserError) as error:
        open_index(folder)
    assert f"{path} is truncated: {size - cut} of {size} bytes; run prepare again, it rewrites only that shard" == str(
        error.value
    )


def test_longer_missing_and_foreign_tars_are_named(folder):
    path = folder / "train-00001.tar"
    with path.open("ab") as stream:
        stream.write(b"\0" * 512)
    with pytest.raises(UserError, match="the manifest says"):
        open_index(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"train-00001\.tar is missing"):
        open_index(folder)


def test_scan_sees_truncation_without_a_manifest(folder):
    path = folder / "train-00000.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        end = max(info.offset_data + info.size for info in tar)
    assert len(scan_tar(path).keys) == 5
    for length in (end - 1, end - 700, 100, end + 512):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="truncated"):
            scan_tar(path)
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match="not a tar"):
        scan_tar(path)


def test_a_shard_cut_while_training_is_named(folder):
    index = open_index(folder)
    reader = ShardReader(index)
    os.truncate(folder / "train-00002.tar", 600)
    with pytest.raises(UserError, match=r"train-00002\.tar is truncated: .* of sample 't0011'"):
        reader.read(11, "latent.npy")


def test_missing_member_is_named(folder):
    reader = ShardReader(open_index(folder))
    with pytest.raises(UserError, match=r"train-00000\.tar holds sample 't0003' without its png"):
        reader.read(3, "png")
    path = folder / "train-00000.tar"
    with tarfile.open(path) as tar:
        kept = [(info, tar.extractfile(info)) for info in tar.getmembers() if info.name != "t0002.latent.npy"]
        with tarfile.open(folder / "new.tar", "w") as new:
            for info, data in kept:
                new.addfile(info, data)
    size = path.stat().st_size
    (folder / "new.tar").rename(path)
    os.truncate(path, size)  # the size is right, so only the index can see the loss
    with pytest.raises(UserError, match="'t0002' without its latent"):
        open_index(folder)


def test_unknown_split_lists_the_others(folder):
    with pytest.raises(UserError, match=r"no samples of split 'val' .* \(it has: fidelity, train\)"):
        open_index(folder, "val")


def descriptors_of(folder) -> int:
    """Open files below ``folder``; other libraries open and close files of their own meanwhile."""
    links = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
    return sum(link.startswith(f"{folder.resolve()}/") for link in links)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for open files in /proc")
def test_descriptors_are_bounded_and_closed(folder):
    reader = ShardReader(open_index(folder), max_open=2)
    before = descriptors_of(folder)
    for sample in (0, 6, 11, 0, 6, 11):
        reader.read(sample, "json")
    assert descriptors_of(folder) == before + 2
    assert not any(os.get_inheritable(descriptor) for descriptor in reader._open.values())
    reader.close()
    assert descriptors_of(folder) == before


def _read_in_child(reader, queue):
    queue.put([reader.read(sample, "json") for sample in range(12)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reads_in_other_processes(folder, method):
    reader = ShardReader(open_index(folder))
    expected = [reader.read(sample, "json") for sample in range(12)]  # the parent has descriptors open
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(reader, queue))
    child.start()
    assert queue.get() == expected
    child.join()
    assert [reader.read(sample, "json") for sample in range(12)] == expected
    assert pickle.loads(pickle.dumps(reader))._open == {}


def test_tables_come_in_the_order_asked(folder):
    records = Manifest.read(folder).split("train")
    assert [table.keys[0] for table in load_tables(folder, records[::-1])] == ["t0010", "t0005", "t0000"]
