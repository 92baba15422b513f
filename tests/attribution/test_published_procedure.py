"""The grounding pass against the whole published procedure, re-implemented on its own, with the same noise in both."""

import numpy as np
import pytest
import torch

from benchmarks.published_grounding import Parts, localise, stack_maps
from meddiff.attribution.grounding_pass import GroundingItem, ground, item_noise, paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.models.backbones import build_unet, load_vae
from meddiff.models.noise_schedule import schedule_config
from meddiff.models.sampling import build_scheduler
from meddiff.models.text.encoder import build_text_encoder, tokenize
from tests.builders.tiny import TEXT, UNET

SEED = 5
CASES = (
    ("Pneumothorax", "Small left pneumothorax."),
    ("Pleural Effusion", "Bilateral pleural effusions, and an effusion in the fissure"),  # "effusions" weighs twice
    ("Cardiomegaly", "The heart is enlarged."),  # no word asks for the class: all words stand in
)


@pytest.fixture(scope="module")
def network(vae_folder):
    torch.manual_seed(1)
    unet, tower = build_unet({**UNET, "sample_size": 8}).eval(), build_text_encoder(TEXT).eval()
    with torch.no_grad():  # random towers barely tell words apart: make the maps worth comparing
        tower.token_embedding.weight.mul_(30)
        for name, weight in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                weight.mul_(8)
    alphas = build_scheduler("ddim", schedule_config("epsilon")).alphas_cumprod
    return unet, load_vae(str(vae_folder)), lambda texts: tower(tokenize(texts)[0]), alphas


@pytest.fixture(scope="module")
def images() -> list[tuple[str, torch.Tensor]]:
    draw = np.random.default_rng(0)
    return [(f"image-{i}", torch.from_numpy(draw.standard_normal((4, 8, 8), dtype=np.float32))) for i in range(3)]


def published(network, images, parts: Parts | None = None):
    unet, vae, encode, alphas = network

    def noise(t: int, latents: torch.Tensor) -> torch.Tensor:
        return torch.stack([item_noise(SEED, key, t, latents.shape[1:]) for key, _ in images])

    latents = torch.stack([one for _, one in images])
    texts, queries = [text for _, text in CASES], [QUERY_WORDS[label] for label, _ in CASES]
    return localise(unet, vae, encode, latents, texts, queries, alphas, noise, parts)


def test_same_noise_gives_the_published_maps(network, images) -> None:
    unet, _, encode, alphas = network
    items = [
        GroundingItem(key, latents, text, query_tokens(text, QUERY_WORDS[label], "paper").weights[None])
        for (key, latents), (label, text) in zip(images, CASES, strict=True)
    ]
    ours = dict(ground(unet, encode, items, alphas, paper_timesteps(), SEED, batch_size=64))
    theirs = published(network, images).maps
    for index in range(len(items)):
        torch.testing.assert_close(ours[index][0], theirs[index], rtol=0, atol=1e-5)
        assert theirs[index].std() > 1e-3, "a flat map would agree with anything"


def test_what_the_benchmark_switches_off_changes_no_map(network, images) -> None:
    whole = published(network, images)
    for parts in (Parts(decodes=False), Parts(first_steps=False), Parts(explicit_self_attention=False)):
        torch.testing.assert_close(published(network, images, parts).maps, whole.maps, rtol=0, atol=1e-5)


def test_the_procedure_does_all_the_published_work(network, images, monkeypatch) -> None:
    unet, vae, _, _ = network
    before = dict(unet.attn_processors)
    times: list[int] = []
    decoded: list[int] = []
    plain = vae.decode

    def decode(latents: torch.Tensor):
        decoded.append(len(latents))
        return plain(latents)

    monkeypatch.setattr(vae, "decode", decode)
    handle = unet.register_forward_pre_hook(lambda module, args: times.append(int(args[1][0])))
    try:
        result = published(network, images)
    finally:
        handle.remove()
    assert times == list(range(981, 0, -20))
    assert decoded == [3, 3]
    assert unet.attn_processors == before
    layers = [name for name in before if "attn2" in name]
    pixels = {"down_blocks.0": 64, "up_blocks.1": 64}  # the other layers work at half the side
    raw = sum(pixels.get(".".join(name.split(".")[:2]), 16) for name in layers)
    assert result.kept_bytes == 3 * 50 * 77 * 4 * (raw + 2 * len(layers) * 64)


def test_pixels_of_low_layers_are_repeated() -> None:
    low, full = torch.rand(1, 1, 4, 77), torch.rand(1, 1, 16, 77)
    stack, _ = stack_maps([[low, full]], (4, 4))
    assert stack.shape == (1, 1, 2, 77, 4, 4)
    assert torch.equal(stack[0, 0, 0, 7], torch.kron(low[0, 0, :, 7].reshape(2, 2), torch.ones(2, 2)))
    assert torch.equal(stack[0, 0, 1, 7], full[0, 0, :, 7].reshape(4, 4))
