"""Attention along a saved trajectory, and what is drawn of maps: panels and animations."""

import io

import numpy as np
import torch
from PIL import Image

from meddiff.attribution.attention_maps import attention_maps, concept_maps_of
from meddiff.attribution.concepts import encode_concepts
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass
from meddiff.attribution.recorder import EachLayer
from meddiff.attribution.scheduled import draw_along
from meddiff.attribution.strips import GAP, LINE, animation, panels
from meddiff.attribution.trajectory import generate, renoised
from meddiff.attribution.words import query_tokens
from tests.builders.drawn_parts import make_attentive_model


def test_of_a_real_image_they_are_those_of_the_grounding_pass() -> None:
    model, text = make_attentive_model(8), "Small left effusion."
    groups = query_tokens(model.text_encoder.tokenizer, text, ["effusion"]).weights[None]
    item = GroundingItem("a", torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0)), text, groups)
    steps = [701, 301, 1]
    path = renoised(model, [item], steps, seed=3)[0]
    before = dict(model.unet.attn_processors)
    maps, layers = attention_maps(model, path, groups, batch_size=2)  # (S, L, 1, h, w)
    assert model.unet.attn_processors == before
    reducer = EachLayer()
    wanted = torch.stack([one.maps for one in grounding_pass(model, [item], steps, seed=3, reducer=reducer)])
    assert layers == reducer.layers
    torch.testing.assert_close(maps, wanted, atol=1e-6, rtol=1e-4)
    other = attention_maps(model, renoised(model, [item], steps, seed=4)[0], groups)[0]
    assert not torch.allclose(other, wanted, atol=1e-6)  # control: the noise is seen by this comparison


def test_concepts_along_a_path_have_a_map_each() -> None:
    model = make_attentive_model(8)
    path = generate(model, ["edema"], [900, 300], ["k"])[0]
    maps = concept_maps_of(model, path, encode_concepts(model, ["effusion", "edema", "pneumonia"]), batch_size=1)
    assert maps.shape == (2, 3, 8, 8)
    assert not torch.allclose(maps[:, 0], maps[:, 1])


def test_images_along_a_schedule_are_where_the_path_ends(vae_folder) -> None:
    model = make_attentive_model(8, vae=str(vae_folder))
    told: list[int] = []
    drawn = draw_along(model, ["a", "b"], ["0", "1"], 5, [999, 500, 20], 2.0, told.append)
    assert drawn.shape[0] == 2
    assert drawn.dtype == np.uint8
    assert told == [1, 2, 3]
    again = draw_along(model, ["b"], ["1"], 5, [999, 500, 20], 2.0)
    assert np.abs(again[0].astype(int) - drawn[1].astype(int)).max() <= 1  # of another batch, to a rounding
    other = draw_along(model, ["b"], ["1"], 5, [999, 900, 800], 2.0)
    assert np.abs(other[0].astype(int) - drawn[1].astype(int)).max() > 1  # control: the list matters


def test_panels_put_every_picture_in_its_place() -> None:
    grey = [[np.full((5, 5), 40 * row + 20 * column, np.uint8) for column in range(3)] for row in range(2)]
    sheet = np.asarray(panels([grey[0], [*grey[1][:2], None]], ["", ""], ["a", "b", "c"], side=10))
    for row in range(2):
        for column in range(2 if row else 3):
            y, x = LINE + row * (10 + GAP) + 5, column * (10 + GAP) + 5
            assert sheet[y, x].tolist() == [40 * row + 20 * column] * 3
    assert sheet[LINE + 10 + GAP + 5, 2 * (10 + GAP) + 5].tolist() == [255] * 3  # an empty place


def test_an_animation_has_a_frame_a_timestep_and_hostile_titles_do_no_harm() -> None:
    frames = [[np.full((5, 5, 3), value, np.uint8)] for value in (10, 200)]
    content = animation(frames, ["t = 9\n\x1b[2J", "t = 1"], ["drawn so far"])
    with Image.open(io.BytesIO(content)) as found:
        assert found.format == "GIF"
        assert found.n_frames == 2  # type: ignore[attr-defined]
