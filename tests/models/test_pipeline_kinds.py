"""Every kind of text tower travels as a diffusers pipeline: the same images in diffusers, and in the suite again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.words import query_tokens
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.pipeline import load_pipeline
from meddiff.models.sampling import SamplingOptions, initial_noise
from meddiff.models.weights.pipeline_folder import write_pipeline
from tests.builders.tiny import UNET
from tests.builders.towers import KINDS, WIDTH

NETWORK = {**UNET, "cross_attention_dim": 24, "encoder_hid_dim": WIDTH}
TEXTS = ["Left cardiomegaly, no effusions.", "\u00dcber edema"]
QUICK = SamplingOptions("ddim", 3, 3.0)


@pytest.mark.filterwarnings("ignore:.*prediction_type is epsilon")  # weights at random
@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_of_every_kind_draws_and_points_alike(kind: str, vae_folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    source = KINDS[kind](tmp_path / "tower").source
    model = LatentDiffusion.build(NETWORK, source, str(vae_folder), sampling=QUICK, seed=0).eval()
    with torch.no_grad():  # as drawn a network hardly hears its text
        model.unet.encoder_hid_proj.weight.mul_(30)
    write_pipeline(tmp_path / "pipeline", model, half=False)
    expected = model.sample(TEXTS, ["a", "b"], 0)

    again = load_pipeline(str(tmp_path / "pipeline"))
    assert np.array_equal(expected, again.sample(TEXTS, ["a", "b"], 0, QUICK))
    drawn = ("embedding_std", "position_std")  # of numbers that were drawn: no file says it
    told = [{k: v for k, v in one.text_encoder.config.items() if k not in drawn} for one in (again, model)]
    assert told[0] == told[1]
    assert not np.array_equal(expected, again.sample(TEXTS[::-1], ["a", "b"], 0, QUICK)), "the text is heard"

    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = []
    for one in (model, again):
        query = query_tokens(one.text_encoder.tokenizer, TEXTS[0], ("cardiomegaly",))
        assert not query.is_fallback
        item = GroundingItem("a", latents, TEXTS[0], query.weights[None])
        maps.append(torch.stack([found.maps for found in grounding_pass(one, [item], [1, 401])]))
    assert torch.equal(*maps)

    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    if model.text_encoder.attention_mask:
        return  # diffusers' pipeline hands its U-Net no mask: the card says so
    noise = initial_noise(0, ["a", "b"], model.latent_shape)
    theirs = pipe(
        TEXTS, latents=noise, num_inference_steps=QUICK.steps, guidance_scale=QUICK.guidance_scale, output_type="np"
    ).images
    assert np.abs((theirs * 255).round() - expected.astype(float)).max() <= 1
