"""Concepts beside the prompt: published formulas by hand, a forward pass that does not notice, the prompt's own tower."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from meddiff.attribution.concepts import Concepts, appended, by_output, concept_maps, encode_concepts, substituted
from meddiff.attribution.eager_attention import Seen
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer
from meddiff.common.errors import UserError
from meddiff.models.backbones import build_unet
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.build import build_text_encoder
from tests.builders.drawn_parts import make_attentive_model
from tests.builders.tiny import UNET
from tests.builders.towers import KINDS, WIDTH

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
PROMPT = "a small left effusion"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(16)


class Plain:
    """One head whose projections leave everything as it is."""

    heads, scale = 1, 1.0
    to_k = to_v = nn.Identity()


def seen(value: Tensor) -> Seen:
    """Two pixels that score the prompt's three tokens as the specification does."""
    scores = SCORES[None, None]
    return Seen(torch.eye(2)[None, None], scores, scores.softmax(dim=-1), value[None, None])


def test_append_is_one_more_key() -> None:
    """Specification, section 8 (a)."""
    found = appended(SCORES, torch.tensor([[1.5], [0.5]]))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.287490, 0.129251]), atol=1e-6, rtol=0)
    more = torch.cat([SCORES, torch.tensor([[1.5], [0.5]])], dim=1).softmax(dim=1)[:, -1:]
    torch.testing.assert_close(found, more)


def test_substitute_is_a_softmax_over_the_concepts_own_tokens() -> None:
    """Specification, section 8 (b)."""
    found = substituted(torch.tensor([[1.5, 0.0], [0.5, 1.0]]))
    expected = torch.tensor([[0.817574, 0.182426], [0.377541, 0.622459]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert substituted(torch.tensor([[1.5, 9.0]]), torch.tensor([True, False])).tolist() == [[1.0, 0.0]]


def test_output_compares_what_a_layer_gives() -> None:
    """Specification, section 8 (c)."""
    looked = seen(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    outputs = looked.probabilities @ looked.value
    expected = torch.tensor([[0.755272, 0.334757], [0.755272, 0.909969]])
    torch.testing.assert_close(outputs[0, 0], expected, atol=1e-5, rtol=0)  # the last digit is not theirs
    expected = torch.tensor([[0.603608, 0.396392], [0.461397, 0.538603]])
    torch.testing.assert_close(by_output(outputs, torch.eye(2)[None])[0], expected, atol=1e-5, rtol=0)


def test_a_phrase_is_the_mean_of_its_tokens_without_special_ones() -> None:
    """Three modes on one layer; the start token shouts and must not be heard, but may take its part of `substitute`."""
    states = torch.tensor(
        [[[9.0, 9.0], [1.5, 0.5], [0.5, 1.5], [0.0, 0.0]], [[9.0, 9.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
    )
    weights = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]])
    looked = seen(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))

    def maps(mode: str, mask: Tensor | None = None) -> Tensor:
        return concept_maps(Concepts(("a b", "a"), states, weights, mask, mode), Plain(), looked)[0]  # type: ignore[arg-type]

    own = states @ torch.eye(2)  # scores of the two pixels, (C, L, N)
    mean = torch.stack([appended(SCORES, own[0, [1]].T), appended(SCORES, own[0, [2]].T)]).mean(dim=0)
    torch.testing.assert_close(maps("append")[0], mean.flatten())
    torch.testing.assert_close(maps("append")[1], appended(SCORES, own[1, [1]].T).flatten())
    shares = own.transpose(1, 2).softmax(dim=-1)  # (C, N, L)
    torch.testing.assert_close(maps("substitute")[0], shares[0, :, 1:3].mean(dim=1))
    without = maps("substitute", torch.tensor([[False, True, True, True]] * 2))
    torch.testing.assert_close(without[0], own[0, 1:].T.softmax(dim=-1)[:, :2].mean(dim=1))
    outputs = looked.probabilities @ looked.value
    torch.testing.assert_close(maps("output").T, by_output(outputs, torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]))[0])


@pytest.mark.parametrize("mode", ["append", "substitute", "output"])
def test_concepts_look_on_and_change_nothing(model: LatentDiffusion, mode: str) -> None:
    """The same bits out of the U-Net and in the prompt's maps, and as many passes."""
    unet, size = model.unet, (16, 16)
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([5, 900])
    text = model.encode_texts([PROMPT, "nothing"]).states
    groups = torch.rand(2, 3, 77)
    concepts = encode_concepts(model, ["pneumothorax", "large heart", "tube"], mode)  # type: ignore[arg-type]
    found = []
    with torch.no_grad():
        for asked in (None, concepts):
            with CrossAttentionRecorder(unet, concepts=asked) as recorder:
                recorder.groups = groups
                output = unet(noisy, times, encoder_hidden_states=text).sample
                found.append((output, recorder.take(size)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert recorder.concept_maps.shape == (2, 3, 16, 16)
    assert recorder.concept_maps.isfinite().all()
    if mode == "output":
        torch.testing.assert_close(recorder.concept_maps.sum(dim=1), torch.ones(2, 16, 16))


def test_the_prompt_as_its_own_concept_has_the_prompts_map_in_every_layer(model: LatentDiffusion) -> None:
    """Substituted for itself the prompt stays; another phrase must not. Appended, p becomes p / (1 + p), which is smaller."""
    text = model.encode_texts([PROMPT]).states
    found = []
    for mode in ("substitute", "append"):
        concepts, words, own = encode_concepts(model, [PROMPT, "tube"], mode), EachLayer(), EachLayer()
        with torch.no_grad(), CrossAttentionRecorder(model.unet, words, concepts, own) as recorder:
            recorder.groups = concepts.weights[:1, None]
            model.unet(torch.ones(1, 4, 16, 16), torch.tensor([500]), encoder_hidden_states=text)
            mine = recorder.take((16, 16))
        assert words.layers == own.layers
        assert recorder.concept_maps.shape == (1, len(own.layers), 2, 16, 16)
        found.append((mine[:, :, 0], recorder.concept_maps[:, :, 0], recorder.concept_maps[:, :, 1]))
    (mine, same, other), (_, appended_too, _) = found
    torch.testing.assert_close(same, mine)
    assert (other - mine).abs().mean() > 0.1 * mine.mean()
    assert (appended_too <= mine + 1e-6).all()
    assert appended_too.mean() < 0.9 * mine.mean()


def test_one_concept_does_not_depend_on_the_others(model: LatentDiffusion) -> None:
    text, noisy = model.encode_texts([PROMPT]).states, torch.randn(1, 4, 16, 16)
    for mode in ("append", "substitute"):
        found = []
        for phrases in (["tube"], ["large heart", "tube"]):
            with (
                torch.no_grad(),
                CrossAttentionRecorder(model.unet, concepts=encode_concepts(model, phrases, mode)) as recorder,
            ):
                recorder.groups = torch.ones(1, 1, 77)
                model.unet(noisy, torch.tensor([500]), encoder_hidden_states=text)
                recorder.take((16, 16))
                found.append(recorder.concept_maps[0, -1])
        torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("kind", ["bert", "cxr-bert", "t5", "clip_few"])
def test_every_tower_encodes_concepts_as_its_prompts(kind: str, tmp_path: Path) -> None:
    """The model's own tower after it has moved, its special tokens left out, its mask kept; no start token in T5."""
    tower = build_text_encoder(KINDS[kind](tmp_path).source).eval()
    model = LatentDiffusion(build_unet({**UNET, "cross_attention_dim": WIDTH}), tower, NoiseSchedule("epsilon")).eval()
    with torch.no_grad():
        tower.token_table.weight.mul_(1.5)
    concepts = encode_concepts(model, ["pleural effusion", "edema"])
    assert torch.equal(concepts.states, model.encode_texts(["pleural effusion", "edema"]).states)
    tokenizer = tower.tokenizer
    for row, phrase in zip(concepts.weights, concepts.names, strict=True):
        places = row.nonzero().flatten().tolist()
        assert places == list(range(tokenizer.starts, tokenizer.length(phrase) - 1))
        assert row.sum().item() == pytest.approx(1.0)
    text = model.encode_texts(["cardiomegaly"])
    with torch.no_grad(), CrossAttentionRecorder(model.unet, concepts=concepts) as recorder:
        recorder.groups = torch.ones(1, 1, tokenizer.max_length)
        model.unet(torch.randn(1, 4, 8, 8), torch.tensor([500]), **text.arguments())
        recorder.take((8, 8))
    assert recorder.concept_maps.isfinite().all()


def test_a_unet_that_projects_its_text_projects_concepts_too() -> None:
    tower = build_text_encoder({"width": 12, "heads": 2, "layers": 1})
    model = LatentDiffusion(build_unet({**UNET, "encoder_hid_dim": 12}), tower, NoiseSchedule("epsilon")).eval()
    text, concepts = model.encode_texts(["tube"]), encode_concepts(model, ["tube"], "substitute")
    word = concepts.weights[:, None]  # (1, 1, L)
    with torch.no_grad(), CrossAttentionRecorder(model.unet, concepts=concepts) as recorder:
        recorder.groups = word
        model.unet(torch.randn(1, 4, 8, 8), torch.tensor([500]), **text.arguments())
        mine = recorder.take((8, 8))
    torch.testing.assert_close(recorder.concept_maps, mine)  # the prompt itself, substituted for itself


def test_what_cannot_be_asked_is_refused(model: LatentDiffusion) -> None:
    for phrases, mode in ([], "append"), (["tube", "tube"], "append"), (["", "tube"], "append"), (["tube"], "output"):
        with pytest.raises(UserError, match=r"^Concepts"):
            encode_concepts(model, phrases, mode)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="append, substitute, output"):
        encode_concepts(model, ["tube"], "mean")  # type: ignore[arg-type]
