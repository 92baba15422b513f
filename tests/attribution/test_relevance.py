"""Relevance of tokens: products of attention and gradient by hand, the network left as it was, and what is reported."""

from dataclasses import dataclass

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from meddiff.attribution.cam_targets import Target
from meddiff.attribution.relevance import Relevance, RelevanceOptions, cost, relevance
from meddiff.attribution.relevance_capture import Captured, _Processor, attention_gradients
from meddiff.attribution.token_roles import token_kinds, word_groups
from meddiff.attribution.trajectory import Trajectory, generate
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.drawn_parts import CountedPasses, make_attentive_model

TEXT, TIMES = "a small left effusion", (900, 300)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(8)


@pytest.fixture(scope="module")
def path(model: LatentDiffusion) -> Trajectory:
    return generate(model, [TEXT], TIMES, ["a"], guidance_scale=3.0)[0]


@pytest.fixture(scope="module")
def groups(model: LatentDiffusion) -> Tensor:
    return word_groups(model.text_encoder.tokenizer, TEXT)[1]


@pytest.fixture(scope="module")
def found(model: LatentDiffusion, path: Trajectory, groups: Tensor) -> Relevance:
    return relevance(model, path, groups)


@dataclass(frozen=True)
class Louder(Target):
    """The same question in another unit."""

    def score(self, model: LatentDiffusion, steps: Trajectory, unconditional: Tensor, conditional: Tensor) -> Tensor:
        """(S,)."""
        return 1000 * super().score(model, steps, unconditional, conditional)


@pytest.mark.parametrize("cross", [False, True])
def test_a_layer_leaves_attention_times_gradient_averaged_over_heads(cross: bool) -> None:
    """Of one layer of diffusers, written out; positive parts are taken before heads are averaged."""
    torch.manual_seed(0)
    attn = Attention(8, 6 if cross else None, heads=2, dim_head=4)
    x, text, weights = torch.randn(1, 5, 8, requires_grad=True), torch.randn(1, 3, 6), torch.randn(1, 5, 8)
    mask = torch.tensor([[[0.0, 0.0, -10000.0]]]) if cross else None
    states = text if cross else x
    captured = Captured()
    attn.set_processor(_Processor(captured, "layer"))  # type: ignore[arg-type]
    output = attn(x, text if cross else None, attention_mask=mask)
    (output * weights).sum().backward()
    q, k, v = (
        part(y).unflatten(-1, (2, 4)).transpose(1, 2)
        for part, y in ((attn.to_q, x), (attn.to_k, states), (attn.to_v, states))
    )
    probabilities = (q @ k.transpose(2, 3) / 2 + (0 if mask is None else mask)).softmax(dim=-1)
    again = attn.to_out[0]((probabilities @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(again, output)
    slopes = torch.autograd.grad((again * weights).sum(), probabilities)[0]
    expected = (slopes * probabilities).clamp(min=0).mean(dim=1)
    assert captured.layers[0].cross is cross
    torch.testing.assert_close(captured.layers[0].weighted, expected.detach())
    assert not torch.allclose(expected, (slopes * probabilities).mean(dim=1).clamp(min=0))


def test_the_network_computes_as_before_and_gets_its_processors_back(model: LatentDiffusion, path: Trajectory) -> None:
    before, text = dict(model.unet.attn_processors), model.encode_texts([TEXT])
    with torch.no_grad():
        plain = model.unet(path.noisy[:1], path.timesteps[:1], **text.arguments()).sample
        with attention_gradients(model.unet) as captured:
            eager = model.unet(path.noisy[:1], path.timesteps[:1], **text.arguments()).sample
    torch.testing.assert_close(eager, plain, rtol=1e-4, atol=1e-5)
    assert len(captured.layers) == len(before)
    with pytest.raises(RuntimeError, match="in the middle"), attention_gradients(model.unet):  # noqa: PT012
        assert model.unet.attn_processors != before
        raise RuntimeError("in the middle")
    assert all(model.unet.attn_processors[name] is one for name, one in before.items())


def test_one_pass_a_step_in_the_order_of_the_layers(
    model: LatentDiffusion, path: Trajectory, groups: Tensor, found: Relevance
) -> None:
    with CountedPasses(model) as passes:
        relevance(model, path, groups)
    assert passes.samples == 2, "the half with the text alone"
    assert cost(2) == 6
    assert list(dict.fromkeys(name.split("_")[0] for name in found.layers)) == ["down", "mid", "up"]
    assert found.sums.shape == (2, 77)
    assert found.maps.shape == (2, 4, 8, 8)
    assert found.sums.isfinite().all()
    assert (found.sums >= 0).all()
    torch.testing.assert_close(found.maps.sum(dim=(2, 3)), found.sums @ groups.T, rtol=1e-4, atol=1e-6)
    assert found.maps.flatten(2).std(dim=2).min() > 0, "maps, not constants"


def test_frozen_and_trained_are_looked_into_alike_and_stay_as_they_were(
    model: LatentDiffusion, path: Trajectory, groups: Tensor, found: Relevance
) -> None:
    parameters = list(model.parameters())
    asked, before = [p.requires_grad for p in parameters], [p.detach().clone() for p in parameters]
    tower_forwards = [part.__dict__.get("forward") for part in model.text_encoder.modules()]
    try:
        model.requires_grad_(False)
        with torch.inference_mode():
            frozen = relevance(model, path, groups)
        assert not any(p.requires_grad for p in parameters)
    finally:
        for p, own in zip(parameters, asked, strict=True):
            p.requires_grad_(own)
    torch.testing.assert_close(frozen.sums, found.sums)
    model.text_encoder.requires_grad_(True)
    try:
        torch.testing.assert_close(relevance(model, path, groups).sums, found.sums)
    finally:
        model.text_encoder.requires_grad_(False)
    assert all(p.grad is None for p in parameters)
    assert all(torch.equal(old, new) for old, new in zip(before, parameters, strict=True))
    assert [part.__dict__.get("forward") for part in model.text_encoder.modules()] == tower_forwards
    assert not any(part._forward_hooks for part in model.modules())


def test_the_targets_unit_changes_sums_and_nothing_else(
    model: LatentDiffusion, path: Trajectory, groups: Tensor, found: Relevance
) -> None:
    """The control is the published form, whose order of tokens hangs on the unit."""
    louder = relevance(model, path, groups, target=Louder())
    torch.testing.assert_close(louder.sums, 1000 * found.sums, rtol=1e-3, atol=1e-6 * float(louder.sums.max()))
    raw = [relevance(model, path, groups, RelevanceOptions.paper(), target) for target in (Target(), Louder())]
    assert (raw[0].share - raw[1].share).abs().max() > 0.01
    assert all(one.sums.isfinite().all() for one in raw)


def test_the_text_side_is_that_of_the_prompt(
    model: LatentDiffusion, path: Trajectory, groups: Tensor, found: Relevance
) -> None:
    """A causal tower hands relevance from later tokens to earlier ones, so the start token gains by it."""
    without = relevance(model, path, groups, RelevanceOptions(text_side=False))
    assert (found.share[:, 0] > without.share[:, 0]).all()
    assert found.note == ""
    torch.testing.assert_close(found.share.sum(dim=1), torch.ones(2))


def test_a_network_without_a_way_to_the_text_has_no_relevance_and_no_nan(path: Trajectory, groups: Tensor) -> None:
    deaf = make_attentive_model(8)
    with torch.no_grad():
        for name, weight in deaf.unet.named_parameters():
            if "attn2.to_v" in name:
                weight.zero_()
    walked = generate(deaf, [TEXT], TIMES, ["a"], guidance_scale=3.0)[0]
    for options, target in (RelevanceOptions(), Target()), (RelevanceOptions.paper(), Target("sum_eps")):
        silent = relevance(deaf, walked, groups, options, target)
        assert silent.sums.eq(0).all()
        assert silent.share.eq(0).all()
        assert silent.minmax(torch.arange(77) < 5).isnan().all(), "nothing stands out"


def test_minmax_is_of_words_alone(model: LatentDiffusion, found: Relevance) -> None:
    words = token_kinds(model.text_encoder.tokenizer, TEXT)["words"]
    values = found.minmax(words)
    assert values[:, ~words].isnan().all()
    assert values[:, words].amax(dim=1).tolist() == [1.0, 1.0]
    assert values[:, words].amin(dim=1).tolist() == [0.0, 0.0]
    one = torch.arange(77) == 2
    assert found.minmax(one).isnan().all(), "a word alone has no rank"


def test_groups_of_another_tokenizer_are_refused(model: LatentDiffusion, path: Trajectory) -> None:
    with pytest.raises(UserError, match="give \\(K, 77\\)"):
        relevance(model, path, torch.ones(2, 24))
    with pytest.raises(UserError, match="not of this model"):
        relevance(make_attentive_model(8, seed=1), path, torch.ones(2, 77))
