"""A latent diffusion model that is told of prototypes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.patronus import Patronus
from meddiff.models.prototype_options import PrototypeOptions
from tests.builders.patronus import PLAIN_UNET, STACK, tiny_patronus
from tests.builders.tiny import TEXT, UNET

X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
S = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) + 0.2
T = torch.tensor([10, 400, 900])
KINDS = [("time", False), ("time", True), ("tokens", False), ("tokens", True)]


def output(model: Patronus, told: object) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.unet(X, T, **told.arguments()).sample  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(("route", "text"), KINDS)
def test_the_unet_is_told_of_prototypes_and_of_none(route: str, text: bool) -> None:
    model = tiny_patronus(route, text)  # type: ignore[arg-type]
    told, nothing = model.conditioning(S), model.conditioning(None).expand(3)
    assert (output(model, told) - output(model, nothing)).abs().max() > 1e-3
    moved = S.clone()
    moved[1, 2] += 1.0
    change = (output(model, model.conditioning(moved)) - output(model, told)).abs().amax(dim=(1, 2, 3))
    assert change[1] > 1e-5
    assert change[[0, 2]].max() == 0


@pytest.mark.parametrize(("route", "text"), KINDS)
def test_rows_that_keep_no_prototypes_are_as_rows_without(route: str, text: bool) -> None:
    model = tiny_patronus(route, text)  # type: ignore[arg-type]
    tokens = model.text_encoder.tokenizer.tokenize(["a", "b", "c"])[0]
    alone = model.encode_tokens(tokens)
    told = model.with_prototypes(alone, S, torch.tensor([True, False, True]))
    mixed, plain = output(model, told), output(model, alone)
    torch.testing.assert_close(mixed[1], plain[1], rtol=1e-4, atol=1e-6)
    assert (mixed[0] - plain[0]).abs().max() > 1e-4
    full = output(model, model.with_prototypes(alone, S))
    torch.testing.assert_close(mixed[0], full[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("route", "text"), KINDS)
def test_conditions_are_taken_repeated_and_joined(route: str, text: bool) -> None:
    model = tiny_patronus(route, text)  # type: ignore[arg-type]
    told, nothing = model.conditioning(S), model.conditioning(None)
    both = nothing.expand(3).before(told)
    with torch.no_grad():
        joined = model.unet(torch.cat([X, X]), torch.cat([T, T]), **both.arguments()).sample
    torch.testing.assert_close(joined[3:], output(model, told), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(joined[:3], output(model, nothing.expand(3)), rtol=1e-4, atol=1e-6)
    swapped = output(model, told.take(torch.tensor([2, 1, 0])))
    torch.testing.assert_close(swapped[1], output(model, told)[1], rtol=1e-4, atol=1e-6)


def test_a_model_without_text_draws_edits_and_ignores_words() -> None:
    model = tiny_patronus(space="pixel", channels=1)
    assert not model.reads_text
    one, other = (model.sample([word], ["a"], 0) for word in ("pneumothorax", ""))
    assert one.shape == (1, 8, 8, 3)
    assert np.array_equal(one, other)
    assert not np.array_equal(model.draw(model.conditioning(S[:1] * 5), ["a"], 0), one)


def test_pixels_are_their_own_latents() -> None:
    draws = np.random.default_rng(0)
    colour = draws.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    grey = draws.integers(0, 256, (2, 8, 8), dtype=np.uint8)
    model = tiny_patronus(space="pixel", channels=3)
    assert np.array_equal(model.to_images(model.to_space(colour)), colour)
    assert (model.downsample, model.scaling_factor) == (1, 1.0)
    alone = tiny_patronus(space="pixel", channels=1)
    assert alone.to_space(grey).shape == (2, 1, 8, 8)
    assert np.array_equal(alone.to_images(alone.to_space(grey))[..., 0], grey)


def test_a_base_without_prototypes_computes_as_before(tmp_path: Path) -> None:
    """... and learns: what the blocks read of the prototypes has a gradient at once."""
    base = LatentDiffusion.build(UNET, TEXT, seed=3).eval()
    base.unet.save_pretrained(tmp_path / "unet")
    options = PrototypeOptions(layers=STACK, number=6, dimension=16)
    model = Patronus.of(str(tmp_path), TEXT, None, options, seed=3).eval()
    text = base.encode_texts(["x", "y", "z"])
    with torch.no_grad():
        before = base.unet(X, T, **text.arguments()).sample
    told = model.conditioning(S, ["x", "y", "z"])
    torch.testing.assert_close(output(model, told), before, rtol=0, atol=1e-6)
    model.unet(X, T, **told.arguments()).sample.square().mean().backward()
    wider = [p for name, p in model.unet.named_parameters() if name.endswith("time_emb_proj.weight")]
    assert wider
    assert all(p.grad is not None and p.grad[:, p.shape[1] // 2 :].abs().max() > 0 for p in wider)


def test_the_published_bottleneck_has_attention_of_four_heads() -> None:
    block = tiny_patronus().unet.mid_block
    assert len(block.resnets) == 2
    assert [attention.heads for attention in block.attentions] == [4]


def test_embeddings_of_time_and_prototypes_are_added_by_layers_of_their_own() -> None:
    """W [SiLU(t); SiLU(s)] of diffusers against W_t SiLU(t) + W_s SiLU(s) of the paper."""
    model = tiny_patronus()
    block = model.unet.down_blocks[0].resnets[0]
    time, told = torch.randn(2, 32), torch.randn(2, 32)
    weight, act = block.time_emb_proj.weight, torch.nn.functional.silu
    joined = block.time_emb_proj(act(torch.cat([time, told], dim=1)))
    apart = act(time) @ weight[:, :32].T + act(told) @ weight[:, 32:].T + block.time_emb_proj.bias
    torch.testing.assert_close(joined, apart)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unet": PLAIN_UNET, "route": "tokens"}, "cross-attention"),
        ({"unet": UNET, "route": "time"}, "attends to a text"),
        ({"unet": {**PLAIN_UNET, "in_channels": 2, "out_channels": 2}, "space": "pixel"}, "1 or 3 channels"),
        ({"unet": {**PLAIN_UNET, "mid_attention_heads": 3}}, "does not divide"),
        ({"unet": {**UNET, "mid_attention_heads": 4}}, "mid_block_type"),
        ({"unet": {**PLAIN_UNET, "num_class_embeds": 3}}, "classes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], told: str) -> None:
    route = changes.get("route", "time")
    options = PrototypeOptions(layers=STACK, number=6, dimension=16, route=route)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=told):
        Patronus.of(changes["unet"], None, None, options, changes.get("space", "latent"))  # type: ignore[arg-type]


def test_another_number_of_activations_is_refused() -> None:
    with pytest.raises(UserError, match="5 activations for a model of 6"):
        tiny_patronus().conditioning(S[:, :5])
