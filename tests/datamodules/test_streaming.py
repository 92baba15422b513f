"""Streamed shards: every sample once an epoch, the draws of the indexed stream, honest refusals."""

import itertools
import tarfile
from types import SimpleNamespace

import pytest
import torch

from datamodules import LatentShardsDataModule
from datamodules.streaming import expand_urls, is_remote, split_urls
from meddiff.common.errors import UserError
from tests.builders.shard_samples import write_folder

N = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_folder(path, {"train": N, "val": 7}, samples_per_shard=3)
    return path


def module(folder, rank=0, world=1, accumulate=1, **options):
    urls = f"pipe:cat {folder}/{{train-0000{{0..4}},val-0000{{0..2}}}}.tar"
    values = {"batch_size": 4, "manifest": f"pipe:cat {folder}/manifest.json", "pin_memory": False}
    data = LatentShardsDataModule(urls, **(values | options))
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=world, accumulate_grad_batches=accumulate, global_step=0
    )
    data.setup("fit")
    return data


def keys_by_epoch(batches):
    epochs = {}
    for batch in batches:
        for key, epoch in zip(batch["key"], batch["epoch"], strict=True):
            epochs.setdefault(epoch, []).append(key)
    return epochs


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 1)])
def test_every_epoch_holds_every_sample_once(folder, world, workers):
    epochs = {}
    for rank in range(world):
        loader = module(folder, rank, world, num_workers=workers).train_dataloader()
        for epoch, keys in keys_by_epoch(itertools.islice(loader, 30)).items():
            epochs.setdefault(epoch, []).extend(keys)
    for epoch in range(3):
        assert sorted(epochs[epoch]) == [f"t{number:04d}" for number in range(N)]
    assert epochs[0] != epochs[1]


def test_same_seed_same_order_other_seed_other_order(folder):
    def keys(seed):
        return [batch["key"] for batch in itertools.islice(module(folder, seed=seed).train_dataloader(), 6)]

    assert keys(0) == keys(0)
    assert keys(0) != keys(1)


def test_items_are_those_of_the_indexed_stream(folder):
    def items(data):
        found = {}
        for batch in itertools.islice(data.train_dataloader(), 10):
            for place, address in enumerate(zip(batch["key"], batch["epoch"], strict=True)):
                names = ("caption", "latents", "noise", "timestep_uniform", "dropout_uniform")
                found[address] = [batch[name][place] for name in names]
        return found

    indexed = LatentShardsDataModule(str(folder), batch_size=4)
    indexed.setup("fit")
    ours, theirs = items(module(folder)), items(indexed)
    common = ours.keys() & theirs.keys()
    assert len(common) >= 3 * N
    for address in common:  # to the last bit: the same functions on the same bytes, item by item
        for a, b in zip(ours[address], theirs[address], strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_counts_every_sample_once(folder, world):
    shares = [list(module(folder, rank, world, batch_size=6).val_dataloader()) for rank in range(world)]
    assert len({tuple(len(batch["key"]) for batch in share) for share in shares}) == 1
    counted = [
        key
        for share in shares
        for batch in share
        for key, weight in zip(batch["key"], batch["weight"], strict=True)
        if weight
    ]
    assert sorted(counted) == [f"v{number:04d}" for number in range(7)]


def test_resume_begins_the_epoch_again_and_says_so(folder):
    data = module(folder)
    data.load_state_dict({"images_consumed": 2 * N + 5, "seed": 0, "samples": N, "global_step": 0})
    with pytest.warns(UserWarning, match=r"after 31 images training goes on from the beginning of epoch 2"):
        loader = data.train_dataloader()
    epochs = keys_by_epoch(itertools.islice(loader, 4))
    assert sorted(epochs) == [2, 3]
    assert len(epochs[2]) == N


def test_broken_pipes_are_named(folder, tmp_path):
    with tarfile.open(folder / "train-00000.tar") as tar:
        boundary = tar.getmember("t0001.json").offset
    for command, match in (
        (f"pipe:cat {tmp_path}/train-00000.tar 2>/dev/null", "cannot read shard pipe:cat"),
        (f"pipe:head -c {boundary - 200} {folder}/train-00000.tar", "to its end"),
        (f"pipe:head -c {boundary} {folder}/train-00000.tar", "gave 1 samples, its manifest says 3"),
    ):
        data = LatentShardsDataModule(command, batch_size=1, manifest=str(folder))
        data.setup("fit")
        with pytest.raises(UserError, match=match):
            list(itertools.islice(data.train_dataloader(), 3))


def test_too_few_shards_and_no_manifest_are_refused(folder):
    with pytest.raises(UserError, match="5 streamed shards cannot feed 6 ranks"):
        module(folder, world=6, batch_size=6).train_dataloader()
    with pytest.raises(UserError, match="set `manifest`"):
        module(folder, manifest=None)
    assert "set `manifest`" in LatentShardsDataModule.preflight(shards="pipe:cat x")[0]
    assert LatentShardsDataModule.preflight(shards="pipe:cat x", manifest=str(folder)) == []


def test_urls():
    assert is_remote("pipe:cat a")
    assert is_remote(["https://a/b.tar"])
    assert not is_remote("data/shards")
    assert expand_urls("s3://b/t-{00000..00001}.tar") == [f"s3://b/t-0000{k}.tar" for k in (0, 1)]
    urls = ["pipe:cat /val-1/train-00000.tar", "pipe:cat /val-1/val-00000.tar"]
    assert split_urls(urls, "val") == urls[1:]
    assert split_urls(["https://a/x.tar"], "train", default=True) == ["https://a/x.tar"]
    with pytest.raises(UserError, match="is of split 'test'"):
        split_urls(urls, "test")


@pytest.mark.parametrize("shards", ["s3://b/{0..1.tar", ["a.tar", "b{{0}.tar"]])
def test_braces_that_do_not_pair_are_said(shards):
    with pytest.raises(UserError, match="do not pair"):
        expand_urls(shards)
