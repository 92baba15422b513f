"""The recorder: the network computes as before, gets its processors back, and layers are reduced as asked."""

import pytest
import torch
from diffusers import UNet2DModel

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer, MeanOverLayers, enlarge
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.drawn_parts import make_attentive_model


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(16)


def test_output_of_the_recorded_network_is_that_of_the_plain_one(model: LatentDiffusion) -> None:
    unet = model.unet
    noisy, text = torch.randn(2, 4, 16, 16), model.encode_texts(["a small ball", "nothing"]).states
    with torch.no_grad():
        plain = unet(noisy, torch.tensor([5, 900]), encoder_hidden_states=text).sample
        with CrossAttentionRecorder(unet) as recorder:
            recorder.groups = torch.ones(2, 1, 77)
            recorded = unet(noisy, torch.tensor([5, 900]), encoder_hidden_states=text).sample
            recorder.take((16, 16))
    torch.testing.assert_close(recorded, plain, rtol=1e-5, atol=1e-5)


def test_processors_come_back_also_after_an_exception(model: LatentDiffusion) -> None:
    unet = model.unet
    before = dict(unet.attn_processors)
    with pytest.raises(RuntimeError, match="in the middle"), CrossAttentionRecorder(unet):  # noqa: PT012
        assert unet.attn_processors != before
        raise RuntimeError("in the middle")
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    items = [
        GroundingItem("a", torch.zeros(4, 16, 16), "effusion", torch.ones(1, 77)),
        GroundingItem("b", torch.zeros(3, 16, 16), "effusion", torch.ones(1, 77)),  # the stack of a batch breaks
    ]
    with pytest.raises(RuntimeError):
        list(grounding_pass(model, items, (781,), batch_size=2))
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())


def test_a_network_without_cross_attention_is_refused() -> None:
    plain = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(UserError, match="nothing to record"):
        CrossAttentionRecorder(plain)


def test_every_layer_counts_alike_whatever_its_resolution() -> None:
    layers = {"low": torch.rand(2, 3, 4), "full": torch.rand(2, 3, 16), "low too": torch.rand(2, 3, 4)}  # (B, K, N)
    mean, each = MeanOverLayers(), EachLayer()
    for name, maps in layers.items():
        mean.add(name, maps)
        each.add(name, maps)
    apart = each.take((4, 4))
    assert each.layers == list(layers)
    assert apart.shape == (2, 3, 3, 4, 4)
    torch.testing.assert_close(apart[:, 0], enlarge(layers["low"], (4, 4)))
    torch.testing.assert_close(mean.take((4, 4)), apart.mean(dim=1))
    each.add("next pass", layers["full"])
    assert each.take((4, 4)).shape == (2, 1, 3, 4, 4), "what was taken is forgotten"
    assert each.layers == ["next pass"]
