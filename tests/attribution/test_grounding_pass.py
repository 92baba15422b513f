"""The batched grounding pass against the plain procedure: one timestep at a time, all maps kept."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from meddiff.attribution.grounding_pass import GroundingItem, ground, item_noise, paper_timesteps
from meddiff.attribution.recorder import CrossAttentionRecorder
from meddiff.attribution.words import QUERY_WORDS, query_tokens, special_tokens
from meddiff.common.errors import UserError
from meddiff.models.backbones import build_unet
from meddiff.models.noise_schedule import schedule_config
from meddiff.models.sampling import build_scheduler
from meddiff.models.text.encoder import build_text_encoder, tokenize
from tests.builders.tiny import TEXT, UNET

TEXTS = {
    "Pneumothorax": "Small left pneumothorax.",
    "Pleural Effusion": "Moderate right pleural effusion with adjacent change.",
    "Cardiomegaly": "The heart is enlarged.",
}


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    unet, tower = build_unet({**UNET, "sample_size": 16}).eval(), build_text_encoder(TEXT).eval()
    with torch.no_grad():  # random towers barely tell words apart: make the maps worth comparing
        tower.token_embedding.weight.mul_(30)
        for name, weight in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                weight.mul_(8)
    return unet, tower, build_scheduler("ddim", schedule_config("epsilon")).alphas_cumprod


def make_items() -> list[GroundingItem]:
    items = []
    for place, (label, text) in enumerate(TEXTS.items()):
        latents = torch.from_numpy(np.random.default_rng(place).standard_normal((4, 16, 16), dtype=np.float32))
        groups = [query_tokens(text, QUERY_WORDS[label]).weights, special_tokens(text)["eos"]]
        items.append(GroundingItem(f"image-{place}", latents, text, torch.stack(groups[: 1 + place % 2])))
    return items


def sequential_reference(unet, tower, alphas, item, timesteps, seed):
    """Every map of every layer, head and step is kept and averaged at the end; hooks on diffusers' own processors."""
    kept, handles, inputs = [], [], {}

    def listen(attention, name):
        def hook(module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            inputs[name] = (module, hidden, kwargs["encoder_hidden_states"])

        handles.append(attention.register_forward_pre_hook(hook, with_kwargs=True))

    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            listen(module, name)
    try:
        for t in timesteps:
            noise = item_noise(seed, item.key, t, item.latents.shape)
            noisy = alphas[t].sqrt() * item.latents + (1 - alphas[t]).sqrt() * noise
            text = tower(tokenize([item.text])[0])
            with torch.no_grad():
                unet(noisy[None], torch.tensor([t]), encoder_hidden_states=text)
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


def run(parts, items, batch_size, timesteps=(781, 401, 1)):
    unet, tower, alphas = parts
    found = ground(unet, lambda texts: tower(tokenize(texts)[0]), items, alphas, timesteps, 3, batch_size)
    return dict(found)


def test_batched_pass_equals_the_sequential_reference(parts) -> None:
    items = make_items()
    found = run(parts, items, batch_size=4)
    assert list(found) == [0, 1, 2]
    for index, item in enumerate(items):
        expected = sequential_reference(*parts, item, (781, 401, 1), 3)
        assert found[index].shape == expected.shape == (len(item.groups), 16, 16)
        torch.testing.assert_close(found[index], expected, rtol=0, atol=1e-6)
        assert expected[0].std() > 1e-4, "a flat map would agree with anything"


def test_batch_size_changes_nothing(parts) -> None:
    items = make_items()
    one, sixteen = run(parts, items, 1), run(parts, items, 16)
    for index in one:
        torch.testing.assert_close(one[index], sixteen[index], rtol=0, atol=1e-6)


def test_all_tokens_together_sum_to_one(parts) -> None:
    item = make_items()[0]
    item.groups = torch.ones(1, 77)
    torch.testing.assert_close(run(parts, [item], 2)[0], torch.ones(1, 16, 16), rtol=0, atol=1e-5)


def test_output_of_the_recorded_network_is_that_of_the_plain_one(parts) -> None:
    unet, tower, _ = parts
    noisy, text = torch.randn(2, 4, 16, 16), tower(tokenize(["a small ball", "nothing"])[0])
    with torch.no_grad():
        plain = unet(noisy, torch.tensor([5, 900]), encoder_hidden_states=text).sample
        with CrossAttentionRecorder(unet) as recorder:
            recorder.groups = torch.ones(2, 1, 77)
            recorded = unet(noisy, torch.tensor([5, 900]), encoder_hidden_states=text).sample
            recorder.take((16, 16))
    torch.testing.assert_close(recorded, plain, rtol=1e-5, atol=1e-5)


def test_processors_come_back_also_after_an_exception(parts) -> None:
    unet = parts[0]
    before = dict(unet.attn_processors)
    with pytest.raises(RuntimeError, match="in the middle"), CrossAttentionRecorder(unet):  # noqa: PT012
        assert unet.attn_processors != before
        raise RuntimeError("in the middle")
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    items = make_items()
    items[1].latents = torch.zeros(3, 16, 16)  # the stack of a batch breaks in mid-pass
    with pytest.raises(RuntimeError):
        run(parts, items, 4)
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())


def test_timesteps_are_the_papers() -> None:
    assert paper_timesteps() == list(range(781, 0, -20))
    for number in (1, 5, 10, 20):
        chosen = paper_timesteps(number)
        assert len(chosen) == number
        assert set(chosen) <= set(paper_timesteps())
        assert abs(np.mean(chosen) - np.mean(paper_timesteps())) <= 10
    with pytest.raises(UserError, match="between 1 and 40"):
        paper_timesteps(50)


def test_a_network_without_cross_attention_is_refused() -> None:
    from diffusers import UNet2DModel

    plain = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(UserError, match="nothing to record"):
        CrossAttentionRecorder(plain)
