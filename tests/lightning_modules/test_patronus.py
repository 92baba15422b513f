"""Training with prototypes: with and without text, both routes, resumed, loaded by itself."""

from pathlib import Path
from typing import cast

import lightning as L
import pytest
import torch
from torch import Tensor

from datamodules import LatentShardsDataModule
from lightning_modules import LatentDiffusionModule, PatronusModule
from lightning_modules.patronus import Spread
from lightning_modules.preflight import QUICK
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.models.patronus import Patronus
from meddiff.runs.open_run import open_run
from tests.builders.patronus import PLAIN_UNET, PROTOTYPES
from tests.builders.tiny import TEXT, UNET, model_config, quiet_trainer
from tests.lightning_modules.test_latent_diffusion import make_batch

KINDS = [("time", None), ("time", TEXT), ("tokens", None), ("tokens", TEXT)]


def arguments(vae: Path, route: str = "time", text: object = None, **overrides: object) -> dict[str, object]:
    unet = PLAIN_UNET if text is None and route == "time" else UNET
    prototypes = {**PROTOTYPES, "route": route}
    return {**model_config(vae), "unet": unet, "text_encoder": text, "prototypes": prototypes, **overrides}


def module_of(vae: Path, route: str = "time", text: object = None, **overrides: object) -> PatronusModule:
    module = PatronusModule(**arguments(vae, route, text, **overrides))  # type: ignore[arg-type]
    module.configure_model()
    return module


def losses(module: PatronusModule, training: bool, seed: int = 0) -> Tensor:
    module.train(training)
    with torch.no_grad():
        return module.denoising_loss(module.with_tokens(make_batch([["No Finding"]] * 6, seed), training))


@pytest.mark.parametrize(("route", "text"), KINDS)
def test_all_of_it_trains(shards: Path, vae_folder: Path, tmp_path: Path, route: str, text: object) -> None:
    """The encoder, too, and through the denoising loss alone; a learnable tower with it."""
    L.seed_everything(0)
    learns = text is not None and route == "time"
    options = {"freeze_text_encoder": not learns, "init_seed": 3}
    before = module_of(vae_folder, route, text, **options).state_dict()
    module = PatronusModule(**arguments(vae_folder, route, text, **options))  # type: ignore[arg-type]
    quiet_trainer(tmp_path, 3, limit_val_batches=1, val_check_interval=3).fit(
        module, datamodule=LatentShardsDataModule(str(shards), batch_size=8)
    )
    after = module.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    if text is not None and not learns:
        still = {name for name in still if "text_encoder" not in name}
    elif learns:
        still = {name for name in still if "token" not in name}  # words that no caption used
    assert not still
    logged = module.trainer.logged_metrics
    assert {"train/loss", *(f"val/prototype_{name}" for name in ("usage_entropy", "dead_share", "mean_cosine"))} <= set(
        logged
    )
    assert 0 < float(logged["val/prototype_usage_entropy"]) <= 1


def test_without_prototypes_told_the_loss_is_that_of_a_plain_model(vae_folder: Path) -> None:
    """The control of a loss that prototypes lower: a model that is told none has nothing of them."""
    plain = LatentDiffusionModule(**{**model_config(vae_folder), "init_seed": 3})  # type: ignore[arg-type]
    plain.configure_model()
    told = module_of(vae_folder, "tokens", TEXT, init_seed=3, prototype_dropout=1.0)
    batch = make_batch([["No Finding"]] * 6)
    with torch.no_grad():
        ours = told.train().denoising_loss(told.with_tokens(batch, training=True))
        theirs = plain.train().denoising_loss(plain.with_tokens(batch, training=True))
        with_them = told.eval().denoising_loss(told.with_tokens(batch, training=False))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert (with_them - theirs).abs().max() > 1e-4


def test_who_is_told_is_a_draw_of_its_own(vae_folder: Path) -> None:
    module = module_of(vae_folder, prototype_dropout=0.5)
    batch = make_batch([["No Finding"]] * 40)
    told = module.with_tokens(batch, training=True)["told"].tolist()
    assert told == [generator(0, "prototypes", 0, f"k{i}").random() >= 0.5 for i in range(40)]
    assert 8 < sum(told) < 32
    kept = [not gone for gone in module.kept_captions(batch)[1]]
    assert told != kept
    half = {
        **batch,
        **{name: value[20:] for name, value in batch.items() if name in ("key", "epoch", "caption", "labels")},
    }
    half |= {name: value[20:] for name, value in batch.items() if isinstance(value, Tensor)}
    assert module.with_tokens(half, training=True)["told"].tolist() == told[20:]  # type: ignore[typeddict-item]
    assert module.with_tokens(batch, training=False)["told"].all()


def test_the_encoder_reads_the_clean_image(vae_folder: Path) -> None:
    """What it says does not hang on the noise: the same for other draws of it."""
    module = module_of(vae_folder, prototype_dropout=0.0)
    batch = module.with_tokens(make_batch([["No Finding"]] * 4), training=True)
    seen: list[Tensor] = []
    module.model.prototypes.register_forward_hook(lambda _, __, found: seen.append(found.detach()))
    module.denoising_loss(batch)
    module.denoising_loss({**batch, "noise": batch["noise"] * 3, "timesteps": batch["timesteps"] // 2})
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], module.model.activations(batch["latents"]))


def test_weight_decay_leaves_prototypes_alone_unless_told(vae_folder: Path) -> None:
    from lightning_modules.optimising import parameter_groups

    for decayed in (False, True):
        module = module_of(
            vae_folder, weight_decay=0.1, decay_prototypes=decayed, prototypes_learning_rate=3e-3, learning_rate=1e-3
        )
        groups = {group["name"]: group for group in parameter_groups(module.model, module.rates)}
        assert groups["unet"]["weight_decay"] == 0.1
        assert groups["prototypes"]["weight_decay"] == (0.1 if decayed else 0.0)
        assert groups["prototypes"]["lr"] == 3e-3
        weights = {id(p) for group in groups.values() for p in group["params"]}
        assert weights == {id(p) for p in module.model.parameters() if p.requires_grad}


def test_prototypes_are_held_apart_where_it_is_asked(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    from meddiff.models.prototypes import mean_cosine

    spread = {}
    for weight in (0.0, 10.0):
        L.seed_everything(0)
        module = PatronusModule(
            **arguments(
                vae_folder, init_seed=3, distinctness=weight, distinctness_margin=1.0, prototypes_learning_rate=0.05
            )  # type: ignore[arg-type]
        )
        trainer = quiet_trainer(tmp_path, 6, limit_val_batches=0)
        trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
        spread[weight] = float(mean_cosine(module.model.prototypes.vectors.detach()))
        assert ("train/loss_distinct" in trainer.logged_metrics) == (weight > 0)
    assert spread[10.0] < spread[0.0] - 0.05


def test_a_run_that_goes_on_ends_with_the_same_bits(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    def fitted(steps: int, start: str | None) -> L.Trainer:
        L.seed_everything(0)
        module = PatronusModule(**arguments(vae_folder, ema_decay=0.9))  # type: ignore[arg-type]
        trainer = quiet_trainer(tmp_path, steps, limit_val_batches=0)
        trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8), ckpt_path=start)
        return trainer

    through = fitted(6, None)
    through.save_checkpoint(tmp_path / "through.ckpt")
    fitted(3, None).save_checkpoint(tmp_path / "half.ckpt")
    fitted(6, str(tmp_path / "half.ckpt")).save_checkpoint(tmp_path / "on.ckpt")
    ends = [torch.load(tmp_path / name, weights_only=True) for name in ("through.ckpt", "on.ckpt")]
    for part in (lambda c: c["state_dict"], lambda c: c["ema"]["shadow"]):
        one, other = part(ends[0]), part(ends[1])
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("route", "text"), [("time", None), ("tokens", TEXT)])
def test_a_checkpoint_says_what_it_is(vae_folder: Path, shards: Path, tmp_path: Path, route: str, text: object) -> None:
    L.seed_everything(0)
    module = PatronusModule(**arguments(vae_folder, route, text))  # type: ignore[arg-type]
    trainer = quiet_trainer(tmp_path, 1, limit_val_batches=0)
    trainer.fit(module, datamodule=LatentShardsDataModule(str(shards), batch_size=8))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    opened = open_run(None, tmp_path / "one.ckpt")
    model = cast(Patronus, opened.model)
    assert isinstance(model, Patronus)
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.activations(x), module.model.activations(x))
        told, again = module.model.eval().conditioning(model.activations(x)), model.conditioning(model.activations(x))
        times = torch.tensor([10, 800])
        ours, theirs = (m.unet(x, times, **c.arguments()).sample for m, c in ((module.model, told), (model, again)))
    assert torch.equal(ours, theirs)
    assert (model.m, model.options.route, model.reads_text) == (6, route, text is not None)


def test_half_precision_keeps_activations_whole(vae_folder: Path) -> None:
    module = module_of(vae_folder)
    batch = module.with_tokens(make_batch([["No Finding"]] * 2), training=False)
    with torch.autocast("cpu", torch.bfloat16):
        s = module.model.activations(batch["latents"])
        loss = module.denoising_loss(batch)
    assert s.dtype == torch.float32
    assert loss.isfinite().all()


def test_the_spread_of_activations_is_that_of_all_batches() -> None:
    s = torch.rand(10, 3) * torch.tensor([1.0, 0.5, 0.0]) + 2.0
    spread = Spread()
    spread.add(s[:4], torch.ones(4))
    spread.add(torch.cat([s[4:], torch.full((2, 3), 99.0)]), torch.tensor([1.0] * 6 + [0.0] * 2))
    entropy, dead = spread.use()
    shares = s.double().var(dim=0) / s.double().var(dim=0).sum()
    assert entropy == pytest.approx(float(-torch.xlogy(shares, shares).sum() / torch.tensor(3.0).log()), rel=1e-6)
    assert dead == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prototype_dropout": 1.5}, "prototype_dropout"),
        ({"freeze_text_encoder": False}, "no text_encoder"),
        ({"space": "pixel"}, "set vae to null"),
        ({"distinctness": -1.0}, "distinctness"),
        ({"prototypes": {**PROTOTYPES, "layers": [[9, 1, 0, 8], [3, 1, 0, 16]]}}, "do not fit into an input of 8 x 8"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(
    vae_folder: Path, changes: dict[str, object], told: str
) -> None:
    given = arguments(vae_folder, **changes)
    (problem,) = QUICK["PatronusModule"](given)
    assert told in problem
    with pytest.raises(UserError, match=told):
        PatronusModule(**given)  # type: ignore[arg-type]


def test_weights_that_are_cut_are_refused(vae_folder: Path, shards: Path, tmp_path: Path) -> None:
    from lightning.pytorch.strategies import FSDPStrategy

    module = PatronusModule(**arguments(vae_folder))  # type: ignore[arg-type]
    trainer = quiet_trainer(tmp_path, 1)
    trainer.strategy.__class__ = FSDPStrategy
    module.trainer = trainer
    with pytest.raises(UserError, match="take ddp"):
        module.configure_model()


def test_a_model_that_is_always_told_draws_no_images_by_itself(vae_folder: Path, tmp_path: Path) -> None:
    for rate, text in ((0.1, None), (0.0, TEXT)):
        module = module_of(vae_folder, "time", text, prototype_dropout=rate)
        module.trainer = quiet_trainer(tmp_path, 1)
        module.setup("predict")
    module = module_of(vae_folder, prototype_dropout=0.0)
    module.trainer = quiet_trainer(tmp_path, 1)
    module.setup("fit")
    with pytest.raises(UserError, match="prototype_dropout is 0"):
        module.setup("predict")


def test_a_model_without_text_has_no_words_to_ground(vae_folder: Path) -> None:
    from meddiff.attribution.words import special_tokens

    with pytest.raises(UserError, match="reads no text"):
        special_tokens(module_of(vae_folder).model.text_encoder.tokenizer, "effusion")
