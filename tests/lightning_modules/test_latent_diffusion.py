"""The module: what trains, what does not, what is dropped, what is lost."""

import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule
from lightning_modules.captions import CaptionCounts
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.models.sampling import SamplingOptions
from meddiff.runs.open_run import open_run
from meddiff.shards.batches import LatentBatch
from tests.builders.tiny import model_config, quiet_trainer


def make_module(vae: Path, **overrides: object) -> LatentDiffusionModule:
    module = LatentDiffusionModule(**model_config(vae, **overrides))
    module.configure_model()
    return module


def make_batch(labels: list[list[str]], seed: int = 0) -> LatentBatch:
    rng = np.random.default_rng(seed)
    n = len(labels)
    return {
        "key": [f"k{i}" for i in range(n)],
        "epoch": [0] * n,
        "caption": [f"caption {i}" for i in range(n)],
        "labels": labels,
        "latents": torch.from_numpy(rng.standard_normal((n, 4, 8, 8), dtype=np.float32)),
        "noise": torch.from_numpy(rng.standard_normal((n, 4, 8, 8), dtype=np.float32)),
        "timestep_uniform": torch.from_numpy(rng.random(n)),
        "dropout_uniform": torch.from_numpy(rng.random(n)),
        "weight": torch.ones(n),
    }


def train(shards: Path, vae: Path, tmp_path: Path, steps: int = 3, **overrides: object) -> LatentDiffusionModule:
    L.seed_everything(0)
    module = LatentDiffusionModule(**model_config(vae, **overrides))
    trainer = quiet_trainer(tmp_path, steps, use_distributed_sampler=False)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
    return module


def test_frozen_keeps_every_bit_of_the_text_tower(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    L.seed_everything(0)
    before = make_module(vae_folder).model.text_encoder.state_dict()
    module = train(shards, vae_folder, tmp_path, freeze_text_encoder=True)
    after = module.model.text_encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(p.requires_grad or p.grad is not None for p in module.model.text_encoder.parameters())
    assert not module.model.text_encoder.training
    optimizer = module.configure_optimizers()["optimizer"]
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.model.unet.parameters()}
    assert {name.split(".")[0] for name in module.model.ema.names} == {"unet"}
    assert not module.model.encode_tokens(module.tokenize(["effusion"])).states.requires_grad
    # The control: the same run does move the U-Net.
    assert any(p.abs().sum() > 0 for p in module.model.unet.parameters())
    fresh = make_module(vae_folder).model.unet.state_dict()
    assert any(not torch.equal(fresh[key], value) for key, value in module.model.unet.state_dict().items())


def test_learnable_moves_the_text_tower_at_its_own_rate(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    L.seed_everything(0)
    before = {k: v.clone() for k, v in make_module(vae_folder).model.text_encoder.state_dict().items()}
    module = train(
        shards, vae_folder, tmp_path, freeze_text_encoder=False, text_encoder_learning_rate=2e-4, weight_decay=0.0
    )
    optimizer = module.trainer.optimizers[0]
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"unet": 1e-3, "text_encoder": 2e-4}
    after = module.model.text_encoder.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before)
    # Adam moves a weight by about its rate a step: the tower's own rate is the one that acts.
    moved = (after["transformer.resblocks.0.mlp.c_fc.weight"] - before["transformer.resblocks.0.mlp.c_fc.weight"]).abs()
    assert 0.5 * 2e-4 < moved.max() < 4 * 2e-4
    assert {name.split(".")[0] for name in module.model.ema.names} == {"unet", "text_encoder"}


def test_learning_rate_of_a_frozen_tower_is_refused(vae_folder: Path) -> None:
    with pytest.raises(UserError, match="frozen"):
        make_module(vae_folder, freeze_text_encoder=True, text_encoder_learning_rate=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_loss_equals_diffusers_scheduler(vae_folder: Path, prediction: str) -> None:
    module = make_module(vae_folder, prediction_type=prediction)
    batch = make_batch([["Edema"]] * 5)
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction
    )
    t = (batch["timestep_uniform"] * 1000).long()
    noisy = scheduler.add_noise(batch["latents"], batch["noise"], t)
    target = batch["noise"] if prediction == "epsilon" else scheduler.get_velocity(batch["latents"], batch["noise"], t)
    with torch.no_grad():
        predicted = module.model(noisy, t, module.tokenize(batch["caption"]))
        expected = (predicted - target).square().mean(dim=(1, 2, 3))
        loss = module.denoising_loss(module.with_tokens(batch, training=False))
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def addressed_batches(seed: int, batch_size: int, labels: list[list[str]]) -> list[dict[str, object]]:
    """Draws as the data module makes them, cut into batches of any size."""
    uniform = [generator(seed, "dropout", 0, f"k{i}").random() for i in range(len(labels))]
    return [
        {
            "caption": ["text"] * len(labels[start : start + batch_size]),
            "labels": labels[start : start + batch_size],
            "dropout_uniform": torch.tensor(uniform[start : start + batch_size], dtype=torch.float64),
        }
        for start in range(0, len(labels), batch_size)
    ]


def test_only_no_finding_captions_are_dropped_at_the_rate(vae_folder: Path) -> None:
    module = make_module(vae_folder)
    labels = [["No Finding"], ["Edema"], ["Pneumonia", "Edema"]] * 10_000
    drops = {}
    for batch_size in (7, 512):
        dropped: list[bool] = []
        for batch in addressed_batches(0, batch_size, labels):
            captions, gone = module.kept_captions(batch)
            assert [text == "" for text in captions] == gone
            dropped += gone
        drops[batch_size] = dropped
    assert drops[7] == drops[512]
    healthy = [gone for gone, names in zip(drops[7], labels, strict=True) if names == ["No Finding"]]
    others = [gone for gone, names in zip(drops[7], labels, strict=True) if names != ["No Finding"]]
    assert abs(np.mean(healthy) - 0.30) < 0.015
    assert not any(others)


def test_generic_dropout_is_the_same_option(vae_folder: Path) -> None:
    module = make_module(vae_folder, caption_dropout_on="all", caption_dropout=0.5)
    gone = [g for batch in addressed_batches(0, 64, [["Edema"]] * 4000) for g in module.kept_captions(batch)[1]]
    assert abs(np.mean(gone) - 0.5) < 0.03


def test_dropout_of_the_data_module_does_not_depend_on_workers_or_batches(shards: Path, vae_folder: Path) -> None:
    module = make_module(vae_folder)

    def dropped(batch_size: int, workers: int, images: int = 96) -> dict[tuple[int, str], bool]:
        data = LatentShardsDataModule(str(shards), batch_size=batch_size, num_workers=workers, seed=5)
        data.setup("fit")
        found: dict[tuple[int, str], bool] = {}
        for batch in data.train_dataloader():
            _, gone = module.kept_captions(batch)
            found.update(zip(zip(batch["epoch"], batch["key"], strict=True), gone, strict=True))
            if len(found) >= images:
                return found
        raise AssertionError("the stream ended")

    reference = dropped(8, 0)
    assert any(reference.values())
    assert reference == dropped(8, 2) == dropped(24, 0)


def test_long_captions_are_counted_and_never_nan(vae_folder: Path) -> None:
    module = make_module(vae_folder)
    batch = make_batch([["Edema"]] * 3)
    batch["caption"][1] = "effusion " * 300
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = module.denoising_loss(module.with_tokens(batch, training=False))
    assert torch.isfinite(loss).all()
    assert module.captions == CaptionCounts(seen=3, truncated=1)
    assert [str(w.message) for w in caught if "1 of 3 captions" in str(w.message)]


def test_validation_is_exact_with_padding(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    """Padded samples weigh nothing: the loss is the same for every batch size."""
    losses = []
    for batch_size in (2, 3, 64):
        L.seed_everything(0)
        module = LatentDiffusionModule(**model_config(vae_folder))
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
        data = LatentShardsDataModule(str(shards), eval_batch_size=batch_size)
        losses.append(trainer.validate(module, datamodule=data, verbose=False)[0]["val/loss"])
    assert max(losses) - min(losses) < 1e-5


def test_precision_bf16(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    L.seed_everything(0)
    module = LatentDiffusionModule(**model_config(vae_folder, freeze_text_encoder=False))
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
    assert trainer.global_step == 2
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("sampler", ["pndm", "ddim", "dpm++"])
def test_samples_do_not_depend_on_the_batch(vae_folder: Path, sampler: str) -> None:
    torch.manual_seed(0)
    model = make_module(vae_folder).model.eval()
    options = SamplingOptions(sampler=sampler, steps=4, guidance_scale=3.0)
    prompts, keys = ["effusion", "edema", "normal chest"], ["a", "b", "c"]
    together = model.sample(prompts, keys, seed=1, options=options)
    alone = np.concatenate([model.sample([p], [k], 1, options) for p, k in zip(prompts, keys, strict=True)])
    assert together.shape == (3, 64, 64, 3)
    assert np.abs(together.astype(int) - alone.astype(int)).max() <= 1
    assert not np.array_equal(together, model.sample(prompts, keys, seed=2, options=options))


def test_guidance_of_one_equals_the_conditional_model(vae_folder: Path) -> None:
    model = make_module(vae_folder).model.eval()
    images = {
        scale: model.sample(["effusion"], ["a"], 0, SamplingOptions("ddim", 3, scale)) for scale in (1.0, 1.0001, 8.0)
    }
    assert np.abs(images[1.0].astype(int) - images[1.0001].astype(int)).max() <= 1
    assert not np.array_equal(images[1.0], images[8.0])


def test_checkpoint_loads_without_the_weights_it_started_from(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    from tests.builders.tiny import UNET

    UNet2DConditionModel(**UNET).save_pretrained(tmp_path / "base" / "unet")
    module = train(shards, vae_folder, tmp_path, unet=str(tmp_path / "base"))
    module.trainer.save_checkpoint(tmp_path / "model.ckpt")
    (tmp_path / "base").rename(tmp_path / "gone")
    again = open_run(None, tmp_path / "model.ckpt").module
    assert not again.training
    for key, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert all(torch.equal(a, b) for a, b in zip(module.model.ema.shadow, again.model.ema.shadow, strict=True))
    with again.model.weights(ema=True):
        assert torch.equal(dict(again.model.named_parameters())[again.model.ema.names[0]], again.model.ema.shadow[0])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"caption_dropout": 1.5}, "must lie in"),
        ({"ema_decay": 1.0}, "must lie in"),
        ({"text_encoder": {"width": 24, "heads": 2, "layers": 1}}, "expects text of width 16"),
        ({"unet": {"sample_size": 8, "colour": "red"}}, "does not accept"),
    ],
)
def test_bad_arguments_get_one_sentence(vae_folder: Path, overrides: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_module(vae_folder, **overrides)


def test_cosine_schedule_rises_and_falls_to_zero(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    """Every step's rate against the formula; the constant schedule beside it."""
    rates: dict[str, list[float]] = {"cosine": [], "constant": []}

    class Record(L.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_before_optimizer_step(
            self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
        ) -> None:
            rates[self.name].append(optimizer.param_groups[0]["lr"])

    for name in rates:
        module = LatentDiffusionModule(**model_config(vae_folder, warmup_steps=4, learning_rate_schedule=name))
        trainer = quiet_trainer(tmp_path, 10, callbacks=[Record(name)])
        trainer.fit(module, LatentShardsDataModule(str(shards), batch_size=4))
    rise = [min(1.0, (step + 1) / 4) for step in range(10)]
    fall = [0.5 * (1 + np.cos(np.pi * step / 10)) for step in range(10)]
    assert rates["constant"] == pytest.approx([1e-3 * up for up in rise])
    assert rates["cosine"] == pytest.approx([1e-3 * up * down for up, down in zip(rise, fall, strict=True)])
