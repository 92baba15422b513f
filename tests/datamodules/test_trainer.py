"""The data module under Lightning's Trainer: what is trained on, saved and gone on with."""

import itertools
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import LatentShardsDataModule
from meddiff.common.errors import UserError
from tests.builders.shard_samples import write_folder

N, B = 13, 4


class Recorder(L.LightningModule):
    """One weight; notes the keys it was trained and evaluated on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated = [], []

    def training_step(self, batch, _):
        self.trained += zip(batch["epoch"], batch["key"], strict=True)
        return ((self.weight - batch["latents"].mean()) ** 2).mean()

    def validation_step(self, batch, _):
        self.validated += [key for key, weight in zip(batch["key"], batch["weight"], strict=True) if weight]

    def predict_step(self, batch, _):
        return batch["key"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_folder(path, {"train": N, "val": 7})
    return str(path)


def trainer(path, **options):
    values = {"max_steps": 12, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    values |= {
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": path,
    }
    every = ModelCheckpoint(
        path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return L.Trainer(**(values | {"callbacks": [every]} | options))


def fit(path, folder, ckpt=None, batch_size=B, num_workers=0, **options):
    model = Recorder()
    data = LatentShardsDataModule(folder, batch_size=batch_size, num_workers=num_workers, eval_batch_size=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*(Checkpoint directory|The dirpath has changed).*")
        warnings.filterwarnings("error", message=".*not resumable.*")  # Lightning must not call the loader unresumable
        warnings.filterwarnings("error", message=".*__len__.*")
        trainer(path, **options).fit(model, data, ckpt_path=ckpt, weights_only=False)
    return model


def stream(folder, count):
    data = LatentShardsDataModule(folder, batch_size=1)
    data.setup("fit")
    batches = itertools.islice(data.train_dataloader(), count)
    return [(batch["epoch"][0], batch["key"][0]) for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_continues_the_stream_and_the_weights(folder, tmp_path, workers):
    whole = fit(tmp_path, folder, num_workers=workers)
    assert whole.trained == stream(folder, 12 * B)
    resumed = fit(tmp_path / "b", folder, ckpt=str(tmp_path / "step=5.ckpt"), num_workers=workers)
    assert resumed.trained == whole.trained[5 * B :]
    assert torch.equal(resumed.weight, whole.weight)  # the same steps in the same order: bit-identical


def test_resume_with_other_batch_size_and_accumulation(folder, tmp_path):
    # Five micro-batches behind it, Lightning alone would step after one more and then always askew.
    first = fit(tmp_path, folder, max_steps=5)
    second = fit(
        tmp_path / "b", folder, str(tmp_path / "step=5.ckpt"), batch_size=6, max_steps=8, accumulate_grad_batches=2
    )
    third = fit(tmp_path / "c", folder, str(tmp_path / "b" / "step=8.ckpt"), max_steps=10)
    assert first.trained + second.trained + third.trained == stream(folder, 5 * 4 + 3 * 6 + 2 * 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_lightning_epochs_do_not_disturb_the_stream(folder, tmp_path, workers):
    whole = fit(tmp_path, folder, num_workers=workers, limit_train_batches=5, max_epochs=-1)
    assert whole.trained == stream(folder, 12 * B)
    resumed = fit(tmp_path / "b", folder, str(tmp_path / "step=7.ckpt"), limit_train_batches=5, max_epochs=-1)
    assert resumed.trained == whole.trained[7 * B :]


@pytest.mark.parametrize(("batch", "steps"), [(0, 0), (4, 2), (5, 3)])  # 1, 5 and 6 micro-batches done
def test_a_checkpoint_inside_an_accumulation_begins_its_step_again(folder, tmp_path, batch, steps):
    class Saver(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.save_checkpoint(tmp_path / f"batch={batch_idx}.ckpt")

    options = {"accumulate_grad_batches": 2, "max_steps": 4}
    whole = fit(tmp_path, folder, callbacks=[Saver()], **options)
    assert whole.trained == stream(folder, 4 * B)
    resumed = fit(tmp_path, folder, str(tmp_path / f"batch={batch}.ckpt"), callbacks=[], **options)
    assert resumed.trained == whole.trained[steps * B :]
    assert torch.equal(resumed.weight, whole.weight)  # the same steps in the same order: bit-identical


def test_a_new_trainer_begins_anew(folder, tmp_path):
    data = LatentShardsDataModule(folder, batch_size=B)
    for name in ("a", "b"):
        model = Recorder()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer(tmp_path / name, max_steps=3).fit(model, data)
        assert model.trained == stream(folder, 3 * B)
        assert data.images_consumed == 3 * B


def test_restore_may_come_before_the_step_count(folder, tmp_path):
    """With max_epochs set, configure_optimizers can open the stream before Lightning knows its global step."""

    class Asking(Recorder):
        def configure_optimizers(self):
            assert self.trainer.estimated_stepping_batches > 0
            return super().configure_optimizers()

    options = {"max_epochs": 3, "max_steps": -1, "limit_train_batches": 4}
    first, second = Asking(), Asking()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path, **options).fit(first, LatentShardsDataModule(folder, batch_size=B))
        again = LatentShardsDataModule(folder, batch_size=B)
        trainer(tmp_path / "b", **options).fit(second, again, ckpt_path=tmp_path / "step=8.ckpt", weights_only=False)
    assert first.trained == stream(folder, 12 * B)
    assert second.trained == first.trained[8 * B :]


def test_validation_and_prediction_see_every_sample_once(folder, tmp_path):
    model = fit(
        tmp_path, folder, max_steps=4, limit_val_batches=1.0, val_check_interval=2, check_val_every_n_epoch=None
    )
    keys = [f"v{number:04d}" for number in range(7)]
    assert model.validated == keys * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = LatentShardsDataModule(folder, eval_batch_size=3)
        predicted = trainer(tmp_path).predict(model, data)
    assert list(itertools.chain(*predicted)) == keys


def test_uneven_batch_stops_before_training(folder, tmp_path):
    with pytest.raises(UserError, match="3 accumulated"):
        fit(tmp_path, folder, accumulate_grad_batches=3)


def test_accumulation_follows_from_the_largest_batch_and_changes_no_sample(folder, tmp_path):
    """A step of 4 in two micro-batches of 2: the same stream, and validation after as many steps as were asked for."""
    seen = []
    for largest in (None, 2):
        module = Recorder()
        data = LatentShardsDataModule(folder, batch_size=B, max_batch_per_device=largest)
        run = trainer(tmp_path / str(largest), max_steps=6, limit_val_batches=1, val_check_interval=3)
        run.fit(module, datamodule=data)
        assert run.accumulate_grad_batches == (1 if largest is None else 2)
        seen.append((module.trained, len(module.validated)))
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 6 * B


def test_two_answers_to_one_question_are_refused(folder, tmp_path):
    data = LatentShardsDataModule(folder, batch_size=B, max_batch_per_device=2)
    with pytest.raises(UserError, match="leave one of them out"):
        trainer(tmp_path, accumulate_grad_batches=4).fit(Recorder(), datamodule=data)
