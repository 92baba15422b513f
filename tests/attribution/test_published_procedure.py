"""The grounding pass against the whole published procedure, re-implemented on its own, with the same noise in both."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.published_grounding import Localised, Parts, localise, stack_maps
from meddiff.attribution.grounding_pass import (
    GroundingItem,
    grounding_pass,
    item_noise,
    mean_over_timesteps,
    paper_timesteps,
)
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.drawn_parts import make_attentive_model

TOKENIZER = ClipTokenizer()

#: key, latents (C, h, w)
Images = list[tuple[str, torch.Tensor]]

SEED = 5
CASES = (
    ("Pneumothorax", "Small left pneumothorax."),
    ("Pleural Effusion", "Bilateral pleural effusions, and an effusion in the fissure"),  # "effusions" weighs twice
    ("Cardiomegaly", "The heart is enlarged."),  # no word asks for the class: all words stand in
)


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_attentive_model(8, seed=1, vae=str(vae_folder))


@pytest.fixture(scope="module")
def images() -> Images:
    draw = np.random.default_rng(0)
    return [(f"image-{i}", torch.from_numpy(draw.standard_normal((4, 8, 8), dtype=np.float32))) for i in range(3)]


def published(model: LatentDiffusion, images: Images, parts: Parts | None = None) -> Localised:
    def noise(t: int, latents: torch.Tensor) -> torch.Tensor:
        return torch.stack([item_noise(SEED, key, t, latents.shape[1:]) for key, _ in images])

    latents = torch.stack([one for _, one in images])
    texts, queries = [text for _, text in CASES], [QUERY_WORDS[label] for label, _ in CASES]
    return localise(
        model.unet,
        model.vae,
        lambda texts: model.encode_texts(texts).states,
        latents,
        texts,
        queries,
        model.noise_schedule.alphas_cumprod,
        noise,
        parts,
    )


@pytest.fixture(scope="module")
def whole(model: LatentDiffusion, images: Images) -> Localised:
    """The procedure with everything that the paper's code does."""
    return published(model, images)


def test_same_noise_gives_the_published_maps(model: LatentDiffusion, images: Images, whole: Localised) -> None:
    items = [
        GroundingItem(key, latents, text, query_tokens(TOKENIZER, text, QUERY_WORDS[label], "paper").weights[None])
        for (key, latents), (label, text) in zip(images, CASES, strict=True)
    ]
    ours = dict(mean_over_timesteps(grounding_pass(model, items, paper_timesteps(), SEED, batch_size=64), 40))
    theirs = whole.maps
    for index in range(len(items)):
        torch.testing.assert_close(ours[index][0], theirs[index], rtol=0, atol=1e-5)
        assert theirs[index].std() > 1e-3, "a flat map would agree with anything"


def test_what_the_benchmark_switches_off_changes_no_map(
    model: LatentDiffusion, images: Images, whole: Localised
) -> None:
    for parts in (Parts(decodes=False), Parts(first_steps=False), Parts(explicit_self_attention=False)):
        torch.testing.assert_close(published(model, images, parts).maps, whole.maps, rtol=0, atol=1e-5)


def test_the_procedure_does_all_the_published_work(
    model: LatentDiffusion, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, vae = model.unet, model.vae
    before = dict(unet.attn_processors)
    times: list[int] = []
    decoded: list[int] = []
    plain = vae.decode

    def decode(latents: torch.Tensor) -> object:
        decoded.append(len(latents))
        return plain(latents)

    monkeypatch.setattr(vae, "decode", decode)
    handle = unet.register_forward_pre_hook(lambda module, args: times.append(int(args[1][0])))
    try:
        result = published(model, images)
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
