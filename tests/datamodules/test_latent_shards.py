"""The data module without a Trainer: one sequence for any workers and ranks; resume; evaluation; errors."""

import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules import LatentShardsDataModule
from meddiff.common.errors import UserError
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.shard_samples import make_pair, write_folder

N, B = 13, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_folder(path, {"train": N, "val": 7, "fidelity": 3})
    return str(path)


def module(folder, rank=0, world=1, accumulate=1, step=0, **options):
    data = LatentShardsDataModule(folder, **({"batch_size": B, "eval_batch_size": 3, "pin_memory": False} | options))
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=world, accumulate_grad_batches=accumulate, global_step=step
    )
    data.setup("fit")
    return data


def take(loader, count):
    return list(itertools.islice(loader, count))


def joined(batches):
    """Batches as one dictionary, in the order given."""
    return {
        name: torch.cat([batch[name] for batch in batches])
        if isinstance(batches[0][name], torch.Tensor)
        else [value for batch in batches for value in batch[name]]
        for name in batches[0]
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


def reference(folder, steps=5, **options):
    return joined(take(module(folder, **options).train_dataloader(), steps))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sequence_is_the_same_for_any_number_of_workers(folder, workers):
    loader = module(folder, num_workers=workers).train_dataloader()
    assert_same(joined(take(loader, 5)), reference(folder))
    assert not hasattr(loader.dataset, "__len__")


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (4, 1), (2, 2)])
def test_sequence_is_the_same_for_any_ranks_and_accumulation(folder, world, accumulate):
    ranks = [take(module(folder, rank, world, accumulate).train_dataloader(), 5 * accumulate) for rank in range(world)]
    batches = [ranks[rank][number] for number in range(5 * accumulate) for rank in range(world)]
    assert {len(batch["key"]) for batch in batches} == {B // world // accumulate}
    assert_same(joined(batches), reference(folder))


def test_every_epoch_holds_every_sample_once(folder):
    batch = reference(folder, steps=13)  # 104 images = 8 epochs of 13, batches of 8 straddle them
    for epoch in range(8):
        keys = [key for key, at in zip(batch["key"], batch["epoch"], strict=True) if at == epoch]
        assert sorted(keys) == [f"t{number:04d}" for number in range(N)]
    orders = {tuple(batch["key"][N * epoch : N * epoch + N]) for epoch in range(8)}
    assert len(orders) == 8


def test_seed_changes_order_and_draws(folder):
    a, b, c = reference(folder, seed=0), reference(folder, seed=1), reference(folder)
    assert a["key"] != b["key"]
    assert not torch.equal(a["noise"], b["noise"])
    assert_same(a, c)


def test_seed_of_seed_everything_is_the_default(folder, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert_same(reference(folder), reference(folder, seed=5))


@pytest.mark.parametrize("position", [0, 1, 8, 13, 37, 1000003])
@pytest.mark.parametrize("workers", [0, 2])
def test_any_position_continues_the_sequence(folder, position, workers):
    data = module(folder, num_workers=workers)
    data.images_consumed = position
    tail = joined(take(data.train_dataloader(), 3))
    order = module(folder).train_dataloader().dataset.order
    expected = [order.position_to_sample(place) for place in range(position, position + 3 * B)]
    assert list(zip(tail["epoch"], tail["key"], strict=True)) == [(e, f"t{s:04d}") for e, s in expected]


def test_position_follows_the_steps_not_the_loader(folder):
    data = module(folder)
    take(data.train_dataloader(), 6)
    assert data.images_consumed == 0  # six batches fetched, no step taken
    data.trainer.global_step = 4
    facts = {"seed": 0, "samples": N, "prompt": "impression"}
    assert data.state_dict() == {"images_consumed": 32, "global_step": 4, **facts}
    assert_same(joined(take(data.train_dataloader(), 1)), joined(take(module(folder).train_dataloader(), 5)[4:]))


@pytest.mark.parametrize("restored_first", [True, False])
def test_batch_size_may_change_across_a_resume(folder, restored_first):
    before = module(folder)
    before.train_dataloader()
    before.trainer.global_step = 4
    state = before.state_dict()
    after = module(folder, batch_size=6, step=4 if restored_first else 0)
    after.load_state_dict(state)
    after.trainer.global_step = 4
    loader = after.train_dataloader()
    assert after.images_consumed == 32
    resumed = joined(take(loader, 2))
    assert_same(resumed, {k: v[32:44] for k, v in reference(folder, steps=6).items()})
    after.trainer.global_step = 6
    assert after.state_dict()["images_consumed"] == 44


def test_a_loader_entered_again_goes_on_from_the_steps_taken(folder):
    whole = reference(folder, steps=4)
    for workers in (0, 2):  # persistent workers keep the dataset they were born with
        data = module(folder, num_workers=workers)
        loader = data.train_dataloader()
        first = take(loader, 2)
        data.trainer.global_step = 2
        assert_same(joined(first + take(loader, 2)), whole)


def test_resume_says_what_changed(folder):
    state = module(folder).state_dict() | {"seed": 7}
    with pytest.warns(UserWarning, match="made with seed 7, now it is 0"):
        module(folder).load_state_dict(state)
    with pytest.warns(UserWarning, match="made with samples 99, now it is 13"):
        module(folder).load_state_dict(state | {"seed": 0, "samples": 99})


def test_a_stream_opened_before_the_restore_is_refused(folder):
    data = module(folder)
    take(data.train_dataloader(), 1)
    with pytest.raises(UserError, match="opened before the checkpoint was restored"):
        data.load_state_dict(data.state_dict())


def test_uneven_batch_is_refused_at_setup(folder):
    with pytest.raises(UserError, match="cannot be shared by 3 ranks"):
        module(folder, world=3)


def test_label_prompts(folder):
    batch = reference(folder, prompt="label", steps=13)
    assert {" ".join(sorted(text.split())) for text in batch["caption"]} == {
        "Edema",
        "Edema Effusion Pleural",
        "Finding No",
    }
    both = {text for text in batch["caption"] if "Edema" in text and "Effusion" in text}
    assert both == {"Edema Pleural Effusion", "Pleural Effusion Edema"}


def test_mean_only_is_the_stored_mean(folder):
    batch = reference(folder, mean_only=True)
    moments = make_pair("train", int(batch["key"][0][1:]))[1].astype(np.float16)
    # a scaling factor of a half: exact on any machine
    np.testing.assert_array_equal(batch["latents"][0], moments[:4].astype(np.float32) * np.float32(0.5))


@pytest.mark.parametrize(
    ("world", "size", "workers"), [(1, 3, 0), (2, 3, 0), (4, 1, 0), (3, 64, 0), (1, 3, 2), (2, 3, 2)]
)
def test_evaluation_does_not_depend_on_ranks_workers_or_batch(folder, world, size, workers):
    ranks = []
    for rank in range(world):
        options = {"batch_size": 12, "eval_batch_size": size, "num_workers": workers}
        loader = module(folder, rank, world, **options).val_dataloader()
        ranks.append(list(loader))
        assert len(loader) == len(ranks[-1])
    assert len({len(batches) for batches in ranks}) == 1
    assert len({tuple(len(batch["key"]) for batch in batches) for batches in ranks}) == 1
    everything = joined([batch for batches in ranks for batch in batches])
    assert everything["weight"].sum() == 7
    whole = joined(list(module(folder).val_dataloader()))
    assert whole["key"] == [f"v{number:04d}" for number in range(7)]
    for place, key in enumerate(everything["key"]):  # to the last bit: items are computed one by one
        for name in ("latents", "noise", "timestep_uniform"):
            assert torch.equal(everything[name][place], whole[name][whole["key"].index(key)])


def test_evaluation_draws_are_not_those_of_training(folder):
    evaluated = joined(list(module(folder, val_split="train").val_dataloader()))
    trained = reference(folder)
    place = evaluated["key"].index(trained["key"][0])
    assert not torch.equal(evaluated["noise"][place], trained["noise"][0])


def test_test_and_predict_take_their_splits(folder):
    assert joined(list(module(folder).test_dataloader()))["key"] == ["f0000", "f0001", "f0002"]
    assert joined(list(module(folder).predict_dataloader()))["key"][0] == "v0000"
    with pytest.raises(UserError, match="no samples of split 'grounding'"):
        module(folder, test_split="grounding").test_dataloader()


def test_dataset_gives_what_was_stored(folder):
    dataset = LatentShardsDataset(folder, "fidelity")
    sample, moments = make_pair("fidelity", 2)
    stored = dataset[2]
    np.testing.assert_array_equal(stored["latent"], moments.astype(np.float16))
    assert (stored["key"], stored["impression"], stored["labels"]) == (sample.key, sample.impression, sample.labels)
    np.testing.assert_array_equal(dataset.image(2), sample.image)
    masks = dataset.masks(2)
    assert masks.keys() == sample.masks.keys()
    for name, mask in masks.items():
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, sample.masks[name])


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_in_a_worker_stays_one_sentence(tmp_path, workers):
    write_folder(tmp_path, {"train": N, "val": 2})
    path = tmp_path / "train-00001.tar"
    data = path.read_bytes()
    place = data.index(b"\x93NUMPY") + 128
    path.write_bytes(data[:place] + b"\x00\x7e" * 8 + data[place + 16 :])  # eight float16 NaN
    loader = module(str(tmp_path), num_workers=workers).train_dataloader()
    with pytest.raises(UserError) as error:
        take(loader, 3)
    text = str(error.value)
    del error  # its traceback would keep the workers until the garbage collector comes, who takes five seconds
    assert text.startswith(f"{path} holds a damaged sample 't0005' (latent is not finite)")
    assert "\n" not in text


def test_preflight_says_what_is_missing(folder, tmp_path):
    assert LatentShardsDataModule.preflight(shards=folder) == []
    (sentence,) = LatentShardsDataModule.preflight(shards=str(tmp_path))
    assert "lightning prepare COHORT" in sentence
    assert LatentShardsDataModule.read_manifest(shards=str(tmp_path)) is None
    write_folder(tmp_path, {"train": N, "val": 2})
    os.truncate(tmp_path / "train-00000.tar", 99)
    (tmp_path / "val-00000.tar").unlink()
    first, second = LatentShardsDataModule.preflight(shards=str(tmp_path))
    assert "train-00000.tar is truncated: 99 of" in first
    assert "val-00000.tar is missing" in second
    assert "it has: train, val" in LatentShardsDataModule.preflight(shards=folder, train_split="x")[0].replace(
        "fidelity, ", ""
    )
    assert LatentShardsDataModule.read_manifest(shards=folder).cohort == "made-up"
    assert "give the folder" in LatentShardsDataModule.preflight(shards=[folder, folder])[0]
