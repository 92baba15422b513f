"""Cross-attention along a saved path: the grounding pass's maps, words and concepts out of one pass a step."""

import pytest
import torch

from meddiff.attribution.attention_maps import attention_maps, cost
from meddiff.attribution.concepts import encode_concepts
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.token_roles import word_groups
from meddiff.attribution.trajectory import renoised
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from tests.builders.drawn_parts import CountedPasses, make_attentive_model

TEXT, TIMES = "a small left effusion", (900, 500, 100)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(8)


def test_maps_of_a_saved_path_are_those_of_the_grounding_pass(model: LatentDiffusion) -> None:
    groups = word_groups(model.text_encoder.tokenizer, TEXT)[1]
    item = GroundingItem("a", torch.randn(4, 8, 8), TEXT, groups)
    path = renoised(model, [item], TIMES, seed=3)[0]
    concepts = encode_concepts(model, ["tube", "large heart"])
    with CountedPasses(model) as passes:
        found = attention_maps(model, path, groups, concepts, batch_size=2)
    assert passes.samples == cost(3) == 3
    expected = torch.stack([one.maps for one in grounding_pass(model, [item], TIMES, seed=3)])
    torch.testing.assert_close(found.words, expected, rtol=1e-4, atol=1e-6)
    assert found.concepts.shape == (3, 2, 8, 8)
    apart = attention_maps(model, path, groups, concepts, each_layer=True)
    assert apart.words.shape == (3, len(apart.layers), 4, 8, 8)
    torch.testing.assert_close(apart.words.mean(dim=1), found.words, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(apart.concepts.mean(dim=1), found.concepts, rtol=1e-4, atol=1e-6)
    assert attention_maps(model, path, groups).concepts.shape == (3, 0, 8, 8)
    with pytest.raises(UserError, match="not of this model"):
        attention_maps(make_attentive_model(8, seed=1), path, groups)
