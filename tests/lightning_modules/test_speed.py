"""The switches of speed: none changes what is trained, and each does what it says."""

from pathlib import Path

import lightning as L
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from lightning_modules import LatentDiffusionModule
from lightning_modules.speed import SpeedOptions, match_layout
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.recorder import CrossAttentionRecorder
from meddiff.common.errors import UserError
from meddiff.models.ema import ExponentialMovingAverage
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.sped import STEPS, farthest, state_of, train
from tests.builders.tiny import TEXT, UNET, model_config


def test_everything_is_off_unless_asked_for(vae_folder: Path) -> None:
    module = LatentDiffusionModule(**model_config(vae_folder))
    module.configure_model()
    assert module.speed == SpeedOptions()
    assert module.hparams["speed"] == vars(SpeedOptions())
    assert module.model.text_cache is None
    assert not module.model.unet.is_gradient_checkpointing
    assert all(part._compiled_call_impl is None for part in module.modules())
    # nothing turns fused attention off
    assert all(isinstance(one, AttnProcessor2_0) for one in module.model.unet.attn_processors.values())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"text_cache": -1}, "text_cache is -1"),
        ({"ema_every": 0}, "ema_every is 0"),
        ({"compile": "some"}, "speed.compile is 'some'"),
        ({"activation_checkpointing": "vae"}, "must be one of none, unet, all"),
    ],
)
def test_wrong_values_are_one_sentence(vae_folder: Path, wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace(".", r"\.")):
        LatentDiffusionModule(**model_config(vae_folder, speed=wrong))


# ---- the cache of a frozen tower's states --------------------------------------------------------------------------------


class CountsTexts(L.Callback):
    """How many texts a tower was given in training."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.texts = 0
        pl_module.model.text_encoder.register_forward_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.texts += len(inputs[0])


def test_cached_texts_train_the_same_model(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    found, texts = {}, {}
    for mebibytes in (0, 1, 100):
        counts = CountsTexts()
        options = {"text_cache": mebibytes}
        # a caption of 77 tokens and 16 channels takes 4.8 KiB: the least cache holds all of them
        found[mebibytes] = state_of(
            train(shards, vae_folder, tmp_path, 14, callbacks=[counts], speed=options, caption_dropout_on="all")
        )
        texts[mebibytes] = counts.texts
    assert farthest(found[0], found[100]) < 1e-5  # rounding: other shapes of the products
    assert all(torch.equal(value, found[100][name]) for name, value in found[1].items())
    assert texts[100] < texts[0] / 2  # 14 x 8 captions of 54 images


def test_a_learnable_tower_is_not_cached(shards: Path, vae_folder: Path, tmp_path: Path) -> None:
    learnable = train(shards, vae_folder, tmp_path, 2, freeze_text_encoder=False, speed={"text_cache": 10})
    assert learnable.model.text_cache is None
    plain = train(shards, vae_folder, tmp_path, 2, freeze_text_encoder=False)
    assert all(torch.equal(value, state_of(plain)[name]) for name, value in state_of(learnable).items())


# ---- exact resume with everything on that a CPU knows ----------------------------------------------------------------------


@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_goes_on_exactly_within_an_interval_of_the_average(
    shards: Path, vae_folder: Path, tmp_path: Path, stop: int
) -> None:
    speed = {"ema_every": 4, "text_cache": 1, "activation_checkpointing": "all"}
    more: dict[str, object] = {"speed": speed, "unet": {**UNET, "dropout": 0.1}}
    whole = state_of(train(shards, vae_folder, tmp_path, 9, **more))
    module = train(shards, vae_folder, tmp_path, stop, **more)
    module.trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = state_of(train(shards, vae_folder, tmp_path, 9, tmp_path / "stopped.ckpt", **more))
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_the_average_of_every_fourth_step_takes_the_decay_of_four() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2).double()
    ema = ExponentialMovingAverage(layer.named_parameters(), 0.9, every=4)
    expected = layer.weight.detach().clone().float()
    for n in range(40):
        with torch.no_grad():
            layer.weight.add_(torch.randn_like(layer.weight))
        ema.update()
        if n % 4 == 3:
            decay = 1.0
            for step in range(n - 3, n + 1):
                decay *= min(0.9, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * layer.weight.detach().float()
        torch.testing.assert_close(ema.shadow[ema.names.index("weight")], expected)
    assert ema.updates == 40


# ---- activations computed again --------------------------------------------------------------------------------------------


def gradients(model: LatentDiffusion) -> dict[str, Tensor]:
    torch.manual_seed(1)  # as the module seeds every step: dropout
    tokens = model.text_encoder.tokenizer.tokenize(["Small effusion.", "No change."])[0]
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    model(noisy, torch.tensor([3, 700]), tokens).square().mean().backward()
    return {name: p.grad.clone() for name, p in model.trained_parameters() if p.grad is not None}


def counted(module: torch.nn.Module) -> list[int]:
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    module.register_forward_pre_hook(count)
    return calls


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_are_the_same_when_activations_are_computed_again(frozen: bool) -> None:
    expected = None
    for how, again in (("none", (1, 1)), ("unet", (2, 1)), ("all", (2, 1 if frozen else 2))):
        model = LatentDiffusion.build({**UNET, "dropout": 0.2}, TEXT, freeze_text_encoder=frozen).train()
        SpeedOptions(activation_checkpointing=how).set_up(model)
        resnet = counted(model.unet.down_blocks[0].resnets[0])
        block = counted(model.text_encoder.transformer.resblocks[0])
        found = gradients(model)
        assert (resnet[0], block[0]) == again
        expected = expected or found
        assert farthest(found, expected) < 1e-6
    # the control: dropout does act
    torch.manual_seed(2)
    assert farthest(gradients(LatentDiffusion.build(UNET, TEXT, freeze_text_encoder=frozen).train()), found) > 1e-4


def grounding_items(model: LatentDiffusion) -> list[GroundingItem]:
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    groups = torch.zeros(1, model.text_encoder.tokenizer.max_length)
    groups[0, 1] = 1.0
    return [GroundingItem("image", latents, "Small effusion.", groups)]


def maps_of(model: LatentDiffusion) -> Tensor:
    with torch.no_grad():
        return torch.stack([one.maps for one in grounding_pass(model, grounding_items(model), [20, 500])])


def test_attention_is_recorded_once_although_activations_are_computed_again() -> None:
    model = LatentDiffusion.build(UNET, TEXT).train()
    expected = maps_of(model)
    SpeedOptions(activation_checkpointing="unet").set_up(model)
    assert torch.equal(maps_of(model), expected)
    with CrossAttentionRecorder(model.unet) as recorder:  # of an attribution that takes gradients
        text = model.encode_texts(["Small effusion."])
        recorder.groups = grounding_items(model)[0].groups[None]
        noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        model.unet(noisy, torch.tensor([20]), **text.arguments()).sample.square().mean().backward()
        assert recorder.take((8, 8)).shape == (1, 1, 8, 8)  # the layers that ran were counted once
    assert model.unet.is_gradient_checkpointing


# ---- channels last ---------------------------------------------------------------------------------------------------------


def test_channels_last_trains_the_same_model_and_takes_moments_of_another_layout(
    shards: Path, vae_folder: Path, tmp_path: Path
) -> None:
    plain = train(shards, vae_folder, tmp_path, 3)
    plain.trainer.save_checkpoint(tmp_path / "plain.ckpt")
    expected = state_of(train(shards, vae_folder, tmp_path, STEPS))
    turned = train(shards, vae_folder, tmp_path, STEPS, tmp_path / "plain.ckpt", speed={"channels_last": True})
    weight = turned.model.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert farthest(state_of(turned), expected) < 1e-4
    # the way back, too
    turned.trainer.save_checkpoint(tmp_path / "turned.ckpt")
    back = train(shards, vae_folder, tmp_path, 8, tmp_path / "turned.ckpt")
    assert farthest(state_of(back), state_of(train(shards, vae_folder, tmp_path, 8))) < 1e-4


def test_a_fused_step_is_wrong_without_moments_in_the_layout_of_the_weights() -> None:
    def stepped(matched: bool, turned: bool) -> Tensor:
        weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)))
        optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
        for step in range(4):
            if turned and step == 2:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
                if matched:
                    match_layout(optimizer)
            grad = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1 + step))
            weight.grad = torch.empty_like(weight).copy_(grad)
            optimizer.step()
        return weight.detach()

    expected = stepped(False, False)
    torch.testing.assert_close(stepped(True, True), expected)
    assert float((stepped(False, True) - expected).abs().max()) > 1e-2


# ---- compiled --------------------------------------------------------------------------------------------------------------

#: A block of each kind: every kernel is seconds of a C++ compiler.
FEW_BLOCKS = {
    **UNET,
    "block_out_channels": [8],
    "down_block_types": ["CrossAttnDownBlock2D"],
    "mid_block_type": None,
    "up_block_types": ["UpBlock2D"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("how", "again"), [("regions", "unet"), ("whole", "none")])
def test_a_compiled_model_has_the_same_names_losses_and_maps(
    shards: Path, vae_folder: Path, tmp_path: Path, how: str, again: str
) -> None:
    more: dict[str, object] = {"unet": FEW_BLOCKS, "text_encoder": {**TEXT, "layers": 1}, "freeze_text_encoder": False}
    plain = train(shards, vae_folder, tmp_path, 3, **more)
    speed = {"compile": how, "activation_checkpointing": again}
    fast = train(shards, vae_folder, tmp_path, 3, speed=speed, **more)
    assert any(part._compiled_call_impl is not None for part in fast.model.unet.modules())
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert farthest(state_of(fast), state_of(plain)) < 1e-4
    torch.testing.assert_close(maps_of(fast.model), maps_of(plain.model), rtol=1e-3, atol=1e-5)
    fast.trainer.save_checkpoint(tmp_path / "fast.ckpt")
    assert train(shards, vae_folder, tmp_path, 4, tmp_path / "fast.ckpt", **more).trainer.global_step == 4
