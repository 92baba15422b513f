"""Prompt variability: addressed draws of synthetic impressions and labels, files of one's own."""

import itertools
import warnings
from collections import Counter
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import LatentShardsDataModule
from datamodules.phantom import PhantomLatentsDataModule
from datamodules.prompts import SYNTHETIC, choose_caption, read_texts
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from tests.builders.prompt_texts import write_texts
from tests.builders.shard_samples import write_folder

N, B = 26, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_folder(path, {"train": N, "val": 9})
    return str(path)


def module(folder, rank=0, world=1, step=0, **options):
    values = {"batch_size": B, "eval_batch_size": 4, "pin_memory": False, "prompt": "synthetic"}
    data = LatentShardsDataModule(folder, **(values | options))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, accumulate_grad_batches=1, global_step=step)
    data.setup("fit")
    return data


def texts_of(batches):
    """(epoch, key) -> text."""
    return {
        (epoch, key): text
        for batch in batches
        for epoch, key, text in zip(batch["epoch"], batch["key"], batch["caption"], strict=True)
    }


def trained(folder, images=2 * N, **options):
    """Texts of the first ``images`` samples of the stream."""
    data = module(folder, **options)
    return texts_of(itertools.islice(data.train_dataloader(), images // data.batch_size))


# Draws ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["synthetic", "label", "mixed"])
def test_texts_do_not_depend_on_batch_size_workers_or_ranks(folder, prompt):
    whole = trained(folder, prompt=prompt, batch_size=1)
    assert len(whole) == 2 * N
    for options in ({"batch_size": 4}, {"batch_size": 1, "num_workers": 2}, {"batch_size": 4, "num_workers": 2}):
        some = trained(folder, prompt=prompt, **options)
        assert len(some) > N
        assert some.items() <= whole.items()
    for rank in range(2):
        loader = module(folder, rank, 2, prompt=prompt, batch_size=4).train_dataloader()
        some = texts_of(itertools.islice(loader, 10))
        assert len(some) == 20
        assert some.items() <= whole.items()


def test_streamed_shards_give_the_same_texts(folder):
    urls = f"pipe:cat {folder}/train-0000{{0..5}}.tar"
    loader = module(urls, manifest=f"pipe:cat {folder}/manifest.json", batch_size=N).train_dataloader()
    assert texts_of(itertools.islice(loader, 1)) == trained(folder, N, batch_size=N)


def test_seed_epoch_and_key_change_the_texts(folder):
    first = trained(folder, batch_size=1)
    keys = [key for epoch, key in first if epoch == 0]
    same_epoch = {key: first[0, key] for key in keys}

    def changed(others):
        return sum(others[key] != text for key, text in same_epoch.items())

    assert changed({key: first[1, key] for key in keys}) > 0.9 * N
    other_seed = trained(folder, N, seed=1, batch_size=1)
    assert changed({key: other_seed[0, key] for key in keys}) > 0.9 * N
    metadata, texts = {"labels": ["Edema"]}, read_texts()
    drawn = [choose_caption(metadata, "synthetic", (0, "caption", 0, key), texts) for key in keys]
    rolled = [choose_caption(metadata, "synthetic", (0, "caption", 0, key), texts) for key in keys[1:] + keys[:1]]
    assert sum(one != other for one, other in zip(drawn, rolled, strict=True)) > 0.9 * N
    assert rolled == drawn[1:] + drawn[:1]  # the texts go with the keys
    assert trained(folder, N, batch_size=1).items() <= first.items()  # and nothing changed gives the same


def test_texts_of_images_agree_with_their_labels(folder, rows):
    label_of = {row["impression"]: row["label"] for row in rows}
    loader = module(folder, batch_size=1).train_dataloader()
    for batch in itertools.islice(loader, 2 * N):
        assert label_of[batch["caption"][0]] in batch["labels"][0]


def test_every_row_is_drawn_equally_often(rows):
    texts = read_texts()
    draws = [
        choose_caption({"labels": ["Pneumonia"]}, "synthetic", (0, "caption", epoch, "k"), texts)
        for epoch in range(10_000)
    ]
    counts = Counter(draws)
    assert set(counts) == {row["impression"] for row in rows if row["label"] == "Pneumonia"}
    statistic = sum((counts[text] - 100) ** 2 / 100 for text in texts["Pneumonia"])
    assert 99 - 4 * 14.1 < statistic < 99 + 4 * 14.1  # chi-squared with 99 degrees of freedom: 99 +- 14.1


def test_the_last_label_with_texts_wins():
    texts = {"Edema": ("e0", "e1", "e2"), "Pneumonia": ("p0",), NO_FINDING: ("n0", "n1")}
    labels = ["Pneumonia", "Fracture", "Edema"]
    for epoch in range(200):
        address = (3, "caption", epoch, "k")
        draw = generator(*address)
        order = [labels[place] for place in draw.permutation(3)]
        winner = next(label for label in order[::-1] if label != "Fracture")
        expected = texts[winner][draw.integers(len(texts[winner]))]
        assert choose_caption({"labels": labels}, "synthetic", address, texts) == expected

    def drawn(*labels):
        return Counter(
            choose_caption({"labels": list(labels)}, "synthetic", (0, "caption", epoch, "k"), texts)
            for epoch in range(600)
        )

    both = drawn("Edema", "Pneumonia")
    assert abs(both["p0"] - 300) < 50  # 4 standard deviations
    assert drawn("Edema", "Fracture").keys() == {"e0", "e1", "e2"}
    assert drawn("Fracture").keys() == drawn().keys() == drawn(NO_FINDING).keys() == {"n0", "n1"}


def test_labels_come_in_every_order_equally_often():
    metadata = {"labels": ["Edema", "Lung Opacity", "Pneumonia"]}
    counts = Counter(choose_caption(metadata, "label", (0, "caption", epoch, "k")) for epoch in range(1200))
    assert set(counts) == {" ".join(order) for order in itertools.permutations(metadata["labels"])}
    assert all(abs(count - 200) < 52 for count in counts.values())  # 4 standard deviations
    assert choose_caption({"labels": [NO_FINDING]}, "label", (0,)) == NO_FINDING


def test_mixed_is_impression_and_label_by_turns():
    metadata = {"labels": ["Edema", "Pneumonia"], "captions": ["one", "two"], "impression": "no"}
    for key in ("k", "l"):  # of one image over the epochs: half and half, and evenly within each half
        counts = Counter(choose_caption(metadata, "mixed", (0, "caption", epoch, key)) for epoch in range(2000))
        assert set(counts) == {"one", "two", "Edema Pneumonia", "Pneumonia Edema"}
        assert all(abs(count - 500) < 78 for count in counts.values())  # 4 standard deviations
    plain = {"labels": ["Edema"], "captions": [], "impression": "a"}
    turns = [
        "".join(choose_caption(plain, "mixed", (0, "caption", epoch, key))[0] for epoch in range(40)) for key in "kl"
    ]
    assert turns[0] != turns[1]  # images take their turns independently
    assert choose_caption(plain, "mixed", (0, "caption", 0, "k")) == choose_caption(
        plain, "mixed", (0, "caption", 0, "k")
    )


@pytest.mark.parametrize("prompt", ["synthetic", "label", "mixed"])
def test_validation_uses_the_same_rule_with_an_address_of_its_own(folder, prompt):
    whole = texts_of(module(folder, prompt=prompt).val_dataloader())
    assert len(whole) == 9
    ranks = [texts_of(module(folder, rank, 2, prompt=prompt, eval_batch_size=1).val_dataloader()) for rank in range(2)]
    assert ranks[0] | ranks[1] == whole
    texts = read_texts()
    for place, (_, key) in enumerate(whole):
        metadata = module(folder).dataset("val").metadata(place)
        assert whole[-1, key] == choose_caption(metadata, prompt, (0, "caption", "val", key), texts)
    if prompt == "synthetic":
        seen = texts_of(module(folder, val_split="train").val_dataloader())
        before = trained(folder, N, batch_size=1)
        assert sum(seen[-1, key] != text for (_, key), text in before.items()) > 0.8 * N


# Resume --------------------------------------------------------------------------------------------------------------


class Reader(L.LightningModule):
    """One weight; notes the texts it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.read = []

    def training_step(self, batch, _):
        self.read += batch["caption"]
        return (self.weight - len("".join(batch["caption"]))) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("prompt", "workers"), [("synthetic", 0), ("synthetic", 2), ("label", 0), ("mixed", 2)])
def test_a_resumed_run_reads_the_texts_of_an_uninterrupted_one(folder, tmp_path, prompt, workers):
    def fit(path, ckpt=None):
        every = ModelCheckpoint(path, "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False)
        model = Reader()
        data = LatentShardsDataModule(folder, batch_size=4, num_workers=workers, prompt=prompt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = L.Trainer(
                max_steps=9,
                accelerator="cpu",
                logger=False,
                callbacks=[every],
                limit_val_batches=0,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=path,
            )
            trainer.fit(model, data, ckpt_path=ckpt, weights_only=False)
        return model

    whole = fit(tmp_path / "whole")
    assert whole.read == list(trained(folder, 36, prompt=prompt, batch_size=1).values())
    resumed = fit(tmp_path / "resumed", str(tmp_path / "whole" / "step=4.ckpt"))  # in the middle of the first epoch
    assert resumed.read == whole.read[16:]
    assert torch.equal(resumed.weight, whole.weight)  # the same steps in the same order: bit-identical


def test_resuming_on_other_texts_is_said(folder, tmp_path):
    state = module(folder).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(folder).load_state_dict(state)
        module(folder).load_state_dict({k: v for k, v in state.items() if k != "prompt"})  # an older checkpoint
    with pytest.warns(UserWarning, match=r"made with prompt synthetic \(texts \w{8}\), now it is label"):
        module(folder, prompt="label").load_state_dict(state)
    own = write_texts(tmp_path / "own.csv", ("Edema", "a"), ("Pleural Effusion", "b"), (NO_FINDING, "c"))
    with pytest.warns(UserWarning, match=r"made with prompt synthetic .* now it is synthetic"):
        module(folder, synthetic_prompts=own).load_state_dict(state)


# Files of one's own --------------------------------------------------------------------------------------------------


def test_a_file_of_ones_own_is_used(folder, tmp_path):
    own = write_texts(
        tmp_path / "own.csv",
        ("x", "Edema", "an edema, seen"),
        ("y", "Pleural Effusion", "an effusion"),
        ("z", NO_FINDING, "nothing"),
        header=("note", "label", "impression"),
    )
    assert set(trained(folder, synthetic_prompts=own).values()) == {"an edema, seen", "an effusion", "nothing"}


BAD = [
    ("label,text\nEdema,a\n", "has no column 'impression'"),
    ("", "has no column 'label' and no 'impression'"),
    ("label,impression\n", "has no texts of 'No Finding' (it has nothing)"),
    ("label,impression\nEdema,a\nPleural Effusion,b\n", "has no texts of 'No Finding' (it has Edema, Pleural"),
    ("label,impression\nEdema,a\nNo Finding,b\n", "has no texts of Pleural Effusion, which the cohort has"),
    ("label,impression\nEdema,a\nPleural Effusion, \nNo Finding,b\n", "has no impression in line 3"),
    ("label,impression\n,a\n", "has no label in line 2"),
    ("label,impression\nEdema\n", "has no impression in line 2"),
    (b"label,impression\nEdema,\xff\xfe\n", "give a CSV file in UTF-8"),
    (None, "No such file or directory"),
]


@pytest.mark.parametrize(("content", "match"), BAD)
def test_a_bad_file_is_one_sentence_at_set_up(folder, tmp_path, content, match):
    path = tmp_path / "own.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        module(folder, synthetic_prompts=str(path))
    text = str(error.value)
    assert match in text
    assert str(path) in text
    assert "\n" not in text
    options = {"prompt": "synthetic", "synthetic_prompts": str(path)}
    assert LatentShardsDataModule.preflight(shards=folder, **options) == [text]
    if "cohort" not in match:  # the phantoms need not be there yet
        assert PhantomLatentsDataModule.preflight(**options) == [text]
    assert LatentShardsDataModule.preflight(shards=folder, synthetic_prompts=str(path)) == []  # not asked for


def test_a_cohort_whose_classes_have_no_texts_is_refused(folder, tmp_path):
    text = (
        (SYNTHETIC.parent / "impressions.csv")
        .read_text(encoding="utf-8")
        .replace("Edema,", "Dog,")
        .replace("Pleural Effusion,", "Cat,")
    )
    path = tmp_path / "own.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="no texts of Edema, Pleural Effusion, which the cohort has"):
        module(folder, synthetic_prompts=str(path))
