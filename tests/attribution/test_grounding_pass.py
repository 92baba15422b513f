"""The batched grounding pass against the plain procedure: one timestep at a time, all maps kept."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from meddiff.attribution.grounding_pass import (
    GroundingItem,
    TimestepMap,
    grounding_pass,
    item_noise,
    mean_over_timesteps,
    paper_timesteps,
)
from meddiff.attribution.recorder import EachLayer
from meddiff.attribution.words import QUERY_WORDS, query_tokens, special_tokens
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.drawn_parts import CountedPasses, make_attentive_model

TOKENIZER = ClipTokenizer()

TEXTS = {
    "Pneumothorax": "Small left pneumothorax.",
    "Pleural Effusion": "Moderate right pleural effusion with adjacent change.",
    "Cardiomegaly": "The heart is enlarged.",
}


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(16)


def make_items() -> list[GroundingItem]:
    items = []
    for place, (label, text) in enumerate(TEXTS.items()):
        latents = torch.from_numpy(np.random.default_rng(place).standard_normal((4, 16, 16), dtype=np.float32))
        groups = [query_tokens(TOKENIZER, text, QUERY_WORDS[label]).weights, special_tokens(TOKENIZER, text)["end"]]
        items.append(GroundingItem(f"image-{place}", latents, text, torch.stack(groups[: 1 + place % 2])))
    return items


def sequential_reference(model: LatentDiffusion, item: GroundingItem, timesteps: Sequence[int], seed: int) -> Tensor:
    """Every map of every layer, head and step is kept and averaged at the end; hooks on diffusers' own processors."""
    kept: list[Tensor] = []
    handles: list[RemovableHandle] = []
    inputs: dict[str, tuple[Attention, Tensor, Tensor]] = {}
    alphas = model.noise_schedule.alphas_cumprod

    def listen(attention: Attention, name: str) -> None:
        def hook(module: Attention, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            inputs[name] = (module, hidden, kwargs["encoder_hidden_states"])

        handles.append(attention.register_forward_pre_hook(hook, with_kwargs=True))

    for name, module in model.unet.named_modules():
        if name.endswith("attn2"):
            listen(module, name)
    try:
        for t in timesteps:
            noise = item_noise(seed, item.key, t, item.latents.shape)
            noisy = alphas[t].sqrt() * item.latents + (1 - alphas[t]).sqrt() * noise
            text = model.encode_texts([item.text]).states
            with torch.no_grad():
                model.unet(noisy[None], torch.tensor([t]), encoder_hidden_states=text)
                for module, hidden, context in inputs.values():
                    query = module.head_to_batch_dim(module.to_q(hidden))
                    key = module.head_to_batch_dim(module.to_k(context))
                    probabilities = module.get_attention_scores(query, key)  # (heads, N, 77)
                    side = int(probabilities.shape[1] ** 0.5)
                    grid = probabilities.mean(0).T.reshape(1, 77, side, side)
                    kept.append(F.interpolate(grid, size=item.latents.shape[-2:], mode="nearest")[0])
    finally:
        for handle in handles:
            handle.remove()
    mean = torch.stack(kept).mean(dim=0)  # (77, h, w)
    return torch.einsum("kt,thw->khw", item.groups, mean)


def run(
    model: LatentDiffusion, items: list[GroundingItem], batch_size: int, timesteps: Sequence[int] = (781, 401, 1)
) -> dict[int, Tensor]:
    return dict(mean_over_timesteps(grounding_pass(model, items, timesteps, 3, batch_size), len(timesteps)))


def test_batched_pass_equals_the_sequential_reference(model: LatentDiffusion) -> None:
    items = make_items()
    found = run(model, items, batch_size=4)
    assert list(found) == [0, 1, 2]
    for index, item in enumerate(items):
        expected = sequential_reference(model, item, (781, 401, 1), 3)
        assert found[index].shape == expected.shape == (len(item.groups), 16, 16)
        torch.testing.assert_close(found[index], expected, rtol=0, atol=1e-6)
        assert expected[0].std() > 1e-4, "a flat map would agree with anything"


def test_batch_size_changes_nothing(model: LatentDiffusion) -> None:
    items = make_items()
    one, sixteen = run(model, items, 1), run(model, items, 16)
    for index in one:
        torch.testing.assert_close(one[index], sixteen[index], rtol=0, atol=1e-6)


def test_all_tokens_together_sum_to_one(model: LatentDiffusion) -> None:
    item = make_items()[0]
    item.groups = torch.ones(1, 77)
    torch.testing.assert_close(run(model, [item], 2)[0], torch.ones(1, 16, 16), rtol=0, atol=1e-5)


def test_timesteps_are_the_papers() -> None:
    assert paper_timesteps() == list(range(781, 0, -20))
    for number in (1, 5, 10, 20):
        chosen = paper_timesteps(number)
        assert len(chosen) == number
        assert set(chosen) <= set(paper_timesteps())
        assert abs(np.mean(chosen) - np.mean(paper_timesteps())) <= 10
    with pytest.raises(UserError, match="between 1 and 40"):
        paper_timesteps(50)


def test_the_mean_of_all_timesteps_is_the_reduced_map_one_forward_pass_each(model: LatentDiffusion) -> None:
    items, timesteps = make_items(), (781, 401, 1)
    with CountedPasses(model) as counted:
        maps = list(grounding_pass(model, items, timesteps, 3, batch_size=4))
    assert counted.samples == len(items) * len(timesteps)
    assert [(one.item, one.timestep) for one in maps] == [(i, t) for i in range(len(items)) for t in timesteps]
    reduced = run(model, items, 4)
    for index in range(len(items)):
        mine = torch.stack([one.maps for one in maps if one.item == index])  # (T, K, h, w)
        torch.testing.assert_close(mine.mean(dim=0), reduced[index], rtol=1e-5, atol=1e-7)
        # the control: timesteps differ, so a mean that lost one would be seen
        assert not torch.allclose(mine[:-1].mean(dim=0), reduced[index], rtol=1e-5, atol=1e-7)


def test_the_mean_of_all_layers_is_the_usual_map(model: LatentDiffusion) -> None:
    items, timesteps = make_items(), (781, 1)
    reducer = EachLayer()
    layers = list(grounding_pass(model, items, timesteps, 3, reducer=reducer))
    usual: list[TimestepMap] = list(grounding_pass(model, items, timesteps, 3))
    assert len(reducer.layers) == len(set(reducer.layers)) == layers[0].maps.shape[0] > 1
    for each, mean in zip(layers, usual, strict=True):
        assert each.maps.shape[1:] == mean.maps.shape == (len(items[each.item].groups), 16, 16)
        torch.testing.assert_close(each.maps.mean(dim=0), mean.maps, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(each.maps[1:].mean(dim=0), mean.maps, rtol=1e-5, atol=1e-7), "a lost layer is seen"
    # layers and timesteps commute: the paper's mean over both, whichever comes first
    both = dict(mean_over_timesteps(layers, len(timesteps)))
    for index, heat in run(model, items, 64, timesteps).items():
        torch.testing.assert_close(both[index].mean(dim=0), heat, rtol=1e-5, atol=1e-7)
