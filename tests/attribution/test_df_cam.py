"""DF-CAM against gradients by hand; nothing of the network is changed; targets and what cannot be asked."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from meddiff.attribution.cam_targets import Logit, Target, asking
from meddiff.attribution.df_cam import CamOptions, add_up, cost, df_cam, find_layers, watched
from meddiff.attribution.trajectory import Trajectory, generate
from meddiff.common.errors import UserError
from meddiff.models.domain_classifier import load_classifier
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, make_classifier
from tests.builders.linear_unet import linear_model
from tests.builders.tiny import make_vae

TEXT, TIMES = "a small left effusion", (900, 500, 100)
FIRST, SECOND, DEAD = "down_blocks.0.resnets.0", "down_blocks.0.resnets.1", "mid_block.resnets.0"


@pytest.fixture(scope="module")
def linear() -> LatentDiffusion:
    return linear_model()


@pytest.fixture(scope="module")
def walked(linear: LatentDiffusion) -> Trajectory:
    return generate(linear, [TEXT], TIMES, ["a"], guidance_scale=3.0)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return make_attentive_model(8, vae=str(make_vae(tmp_path_factory.mktemp("vae"), 0)))


@pytest.fixture(scope="module")
def path(model: LatentDiffusion) -> Trajectory:
    return generate(model, [TEXT], TIMES, ["a"], guidance_scale=3.0)[0]


def by_hand(model: LatentDiffusion, noisy: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the two layers of the linear network where dy/d(output) is ``slope``, (S, C, h, w)."""
    first, second = (layer.weight.detach() for layer in model.unet.down_blocks[0].resnets)
    out = model.unet.conv_out.weight.detach()[:, :, 0, 0]  # (C, 5)
    one = torch.nn.functional.conv2d(noisy, first, padding=1)  # (S, 6, h, w)
    two = torch.einsum("oi,sihw->sohw", second[:, :, 0, 0], one)
    into_two = torch.einsum("co,schw->sohw", out, slope).mean(dim=(2, 3))  # (S, 5)
    into_one = into_two @ second[:, :, 0, 0]  # (S, 6)
    return tuple(
        torch.einsum("sk,skhw->shw", alpha, features).clamp(min=0)
        for alpha, features in ((into_one, one), (into_two, two))
    )


@pytest.mark.parametrize("kind", ["guidance", "sum_eps", "roi"])
def test_equals_the_gradient_by_hand_on_a_linear_network(
    linear: LatentDiffusion, walked: Trajectory, kind: str
) -> None:
    region = torch.zeros(6, 6)
    region[1:3, 2:5] = 1.0
    target = Target(kind, region if kind == "roi" else None)  # type: ignore[arg-type]
    found = df_cam(linear, walked, target=target)
    difference = walked.conditional - walked.unconditional
    slope = {"guidance": 2 * difference, "sum_eps": torch.ones_like(difference), "roi": 2 * difference * region}[kind]
    one, two = by_hand(linear, walked.noisy, slope)
    torch.testing.assert_close(found.maps[:, found.layers.index(FIRST)], one)
    torch.testing.assert_close(found.maps[:, found.layers.index(SECOND)], two)


def test_the_papers_combination_of_both_halves(linear: LatentDiffusion, walked: Trajectory) -> None:
    """Features of both halves are the same in this network, so the combination is the conditional map; on another it is not."""
    ones = torch.ones_like(walked.noisy)
    found = df_cam(linear, walked, CamOptions.paper(), Target("sum_eps"))
    torch.testing.assert_close(found.maps[:, found.layers.index(FIRST)], by_hand(linear, walked.noisy, ones)[0])
    assert cost(3, CamOptions.paper()) == 18


def test_combined_is_linear_in_features_and_gradients_of_the_two_halves(
    model: LatentDiffusion, path: Trajectory
) -> None:
    layer = "mid_block.resnets.0"
    found = df_cam(model, path, CamOptions((layer,), "combined"), Target("sum_eps")).maps[:, 0]
    text, halves = model.encode_texts(["", TEXT]).states, []
    with watched(model.unet, [layer]) as features, torch.enable_grad():
        for half in (0, 1):
            noisy = path.noisy.clone().requires_grad_()
            output = model.unet(noisy, path.timesteps, text[[half] * 3]).sample.sum()
            halves.append((features[layer].detach(), torch.autograd.grad(output, features[layer])[0]))
    both = [u + 3.0 * (c - u) for u, c in zip(*halves, strict=True)]
    expected = (both[1].mean(dim=(2, 3), keepdim=True) * both[0]).sum(dim=1, keepdim=True).relu()
    expected = torch.nn.functional.interpolate(expected, size=(8, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_a_layer_without_a_map_is_left_out_of_the_sum(linear: LatentDiffusion, walked: Trajectory) -> None:
    found = df_cam(linear, walked)
    assert not found.used[:, found.layers.index(DEAD)].any()
    assert found.maps.isfinite().all()
    assert found.total.isfinite().all()
    assert found.total.amax() <= found.used.sum(dim=1).amax()
    total, used = add_up(torch.full((2, 3, 4, 4), 0.1) + 1e-8 * torch.rand(2, 3, 4, 4))
    assert not used.any(), "what rounding leaves is no place"
    assert total.eq(0).all()


def test_nothing_of_the_network_is_changed(model: LatentDiffusion, path: Trajectory) -> None:
    """Frozen or trained, also in inference mode; gradients that training has gathered stay, and the maps are the same."""
    trained = list(model.unet.parameters())
    before = [p.detach().clone() for p in trained]
    trained[0].grad = torch.full_like(trained[0], 7.0)
    free = df_cam(model, path)
    assert [p.requires_grad for p in trained] == [True] * len(trained)
    assert trained[0].grad.eq(7).all()
    trained[0].grad = None
    assert all(p.grad is None for p in trained)
    try:
        model.unet.requires_grad_(False)
        with torch.no_grad():
            frozen = df_cam(model, path)
        with torch.inference_mode():
            inferred = df_cam(model, generate(model, [TEXT], TIMES, ["a"], guidance_scale=3.0)[0])
        assert not any(p.requires_grad for p in trained)
    finally:
        model.unet.requires_grad_(True)
    torch.testing.assert_close(free.maps, frozen.maps)
    torch.testing.assert_close(free.maps, inferred.maps)
    assert all(torch.equal(old, new) for old, new in zip(before, trained, strict=True))
    assert not any(module._forward_hooks for module in model.unet.modules())


def test_hooks_are_gone_after_an_exception(model: LatentDiffusion, path: Trajectory) -> None:
    modules = list(model.unet.modules())
    layers = find_layers(model.unet, ["resnets"])
    with pytest.raises(RuntimeError, match="in the middle"), watched(model.unet, layers):  # noqa: PT012
        assert any(module._forward_hooks for module in modules)
        raise RuntimeError("in the middle")
    with pytest.raises(UserError, match="gives no image"):  # from within the forward pass
        df_cam(model, path, CamOptions(("mid_block.resnets.0", "time_embedding")))
    assert not any(module._forward_hooks for module in modules)


def test_layers_stand_in_the_order_in_which_they_run_whatever_the_batch(
    model: LatentDiffusion, path: Trajectory
) -> None:
    with CountedPasses(model) as passes:
        found = df_cam(model, path)
    assert passes.samples == 3, "one pass a step, none walked again"
    blocks = list(dict.fromkeys(name.split("_")[0] for name in found.layers))
    assert blocks == ["down", "mid", "up"]
    assert {name.split(".")[-2] for name in found.layers} == {"resnets", "attentions", "downsamplers", "upsamplers"}
    assert found.maps.shape == (3, len(found.layers), 8, 8)
    together = df_cam(model, path, CamOptions(batch_size=2))
    torch.testing.assert_close(found.maps, together.maps, rtol=1e-3, atol=1e-4 * float(found.maps.max()))
    model.unet.enable_gradient_checkpointing()
    try:
        again = df_cam(model, path)
        assert model.unet.is_gradient_checkpointing
    finally:
        model.unet.disable_gradient_checkpointing()
    torch.testing.assert_close(found.maps, again.maps)


def test_a_logit_of_the_decoded_estimate_is_differentiable(
    model: LatentDiffusion, path: Trajectory, tmp_path: Path
) -> None:
    """The gradient up to the output against finite differences; another finding has another map."""
    network = load_classifier(make_classifier(tmp_path))
    target = Target("classifier", logit=Logit(network, "Edema", side=32))
    begins = asking(model, path, target)
    direction = torch.randn(path.conditional.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-3
    with torch.no_grad():
        ends = [
            target.score(model, path, path.unconditional, path.conditional + sign * step * direction)
            for sign in (1, -1)
        ]
    numeric = (ends[0] - ends[1]) / (2 * step)
    # kinks of ReLUs and clamped pixels lie within the step
    torch.testing.assert_close((begins.conditional * direction).sum(dim=(1, 2, 3)), numeric, rtol=0.2, atol=1e-3)
    maps = df_cam(model, path, target=target)
    other = df_cam(model, path, target=Target("classifier", logit=Logit(network, "Pneumothorax", side=32)))
    assert maps.maps.isfinite().all()
    assert not torch.allclose(maps.total, other.total)


def test_an_autoencoder_that_was_first_read_in_inference_mode_lets_gradients_pass(
    path: Trajectory, tmp_path: Path
) -> None:
    """As in a trainer's validation."""
    fresh = make_attentive_model(8, vae=str(make_vae(tmp_path / "vae", 0)))
    target = Target(
        "classifier", logit=Logit(load_classifier(make_classifier(tmp_path / "classifier")), "Edema", side=32)
    )
    with torch.inference_mode():
        assert fresh.vae is fresh.vae
        maps = df_cam(fresh, path.at([1]), CamOptions(("mid_block.resnets.0",)), target).maps
    assert maps.max() > 0


def test_what_cannot_be_asked_is_refused(model: LatentDiffusion, path: Trajectory, tmp_path: Path) -> None:
    for make, told in (
        (lambda: Target("mean"), "guidance, sum_eps"),  # type: ignore[arg-type]
        (lambda: Target("roi"), "give a region"),
        (lambda: Target("classifier"), "give a classifier"),
        (
            lambda: Target("classifier", logit=Logit(load_classifier(make_classifier(tmp_path)), "Cold")),
            "no output 'Cold'",
        ),
        (lambda: CamOptions(half="both"), "conditional or combined"),  # type: ignore[arg-type]
        (lambda: CamOptions(batch_size=0), "at least 1"),
        (lambda: df_cam(model, path, CamOptions(("up_blocks.9",))), "no layer 'up_blocks.9'"),
        (lambda: df_cam(model, path, target=Target("roi", torch.ones(4, 4))), "resize it"),
        (lambda: df_cam(make_attentive_model(8, seed=1), path), "not of this model"),
    ):
        with pytest.raises(UserError, match=told):
            make()
