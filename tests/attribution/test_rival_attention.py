"""Attention that rival protocols read: which words, which layers, along an inversion, and of an image that is drawn."""

import pytest
import torch
from torch import Tensor

from meddiff.attribution.attention_maps import noised, recorded
from meddiff.attribution.generated_attention import drawn_maps, drawn_times, late_times
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.attribution.inverted_attention import inversion_cost, inversion_times, inverted, read_times
from meddiff.attribution.layer_groups import GroupedLayers, ScaledQuarter, quarter_grid
from meddiff.attribution.lexical import all_tokens, content_tokens, is_content
from meddiff.attribution.recorder import CrossAttentionRecorder, EachLayer, MeanOverLayers
from meddiff.attribution.trajectory import generate
from meddiff.attribution.words import query_tokens
from meddiff.common.errors import UserError
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from tests.builders.drawn_parts import CountedPasses, make_attentive_model

TOKENIZER = ClipTokenizer()
PHRASE = "Small left-sided effusion at 3.5 cm."


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_attentive_model(16)


def latents(seed: int = 0) -> Tensor:
    return torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed))


# ---- words ----------------------------------------------------------------------------------------------------------


def test_content_words_are_kept_and_function_words_are_not() -> None:
    query = content_tokens(TOKENIZER, PHRASE)
    assert query.words == ("Small", "left-sided", "effusion", "cm.")
    words = {word.text: range(word.start, word.stop) for word in TOKENIZER.words(PHRASE)}
    kept = {name: float(query.weights[list(span)].sum()) for name, span in words.items()}
    assert kept == pytest.approx({**{name: 0.25 for name in query.words}, "at": 0.0, "3.5": 0.0})
    first = content_tokens(TOKENIZER, PHRASE, first=True).weights
    assert first.nonzero().flatten().tolist() == [words[name].start for name in query.words]
    assert float(first.sum()) == pytest.approx(1.0)
    assert [is_content(word) for word in ("no", "without", "pleural", "is", "is.", "large")] == [
        *(False, False, True, False, False, True)
    ]
    nothing = content_tokens(TOKENIZER, "there is no")
    assert nothing.words == ()
    assert float(nothing.weights.sum()) == pytest.approx(1.0), "all words stand in, as for query words"
    assert not content_tokens(TOKENIZER, "").weights.any()


def published_words(text: str, tagged: list[tuple[str, bool]]) -> list[str]:
    """The published look-up: the number of a tagger's token among the blank-separated words.

    Args:
        tagged: the tagger's tokens without punctuation, and whether each is kept.
    """
    words = text.split()
    return [words[place] for place, (_, kept) in enumerate(tagged) if kept and place < len(words)]


def test_published_numbers_of_words_slip_behind_a_hyphen() -> None:
    """A tagger makes two tokens of "left-sided": from there on each number names the next word."""
    text = "Small left-sided effusion is improved."
    tagged = [("Small", True), ("left", True), ("sided", True), ("effusion", True), ("is", False), ("improved", True)]
    assert published_words(text, tagged) == ["Small", "left-sided", "effusion", "is"], (
        "a function word, and not 'improved'"
    )
    assert content_tokens(TOKENIZER, text).words == ("Small", "left-sided", "effusion", "improved.")


def test_no_word_piece_is_left_off() -> None:
    """Published: the range of a class's tokens ends before its last one."""
    text = "Left pneumothorax."
    word = TOKENIZER.words(text)[1]
    published = list(range(word.start, word.stop - 1))
    ours = query_tokens(TOKENIZER, text, ("pneumothorax",)).weights.nonzero().flatten().tolist()
    assert ours == [*published, word.stop - 1]


def test_all_tokens_are_those_between_start_and_end() -> None:
    weights = all_tokens(TOKENIZER, PHRASE)
    length = TOKENIZER.length(PHRASE)
    assert weights.nonzero().flatten().tolist() == list(range(1, length - 1))
    assert float(weights.sum()) == pytest.approx(1.0)
    assert not all_tokens(TOKENIZER, "").any()


# ---- layers ---------------------------------------------------------------------------------------------------------


def test_groups_of_all_layers_are_the_mean_of_all_layers(model: LatentDiffusion) -> None:
    item = GroundingItem("a", latents(), PHRASE, content_tokens(TOKENIZER, PHRASE).weights[None])
    found = {}
    for name, reducer in (("mean", MeanOverLayers()), ("groups", GroupedLayers()), ("each", EachLayer())):
        maps = grounding_pass(model, [item], [500, 100], reducer=reducer)
        found[name] = next(mean_over_timesteps(maps, 2))[1]
        if isinstance(reducer, GroupedLayers):
            counts, groups = reducer.counts, reducer.groups
        if isinstance(reducer, EachLayer):
            layers = reducer.layers
    assert sum(counts) == len(layers)
    assert len(set(groups)) == len(groups) == len(found["groups"]) > 2
    assert {group.part for group in groups} == {"down", "mid", "up"}
    weights = torch.tensor(counts) / sum(counts)
    torch.testing.assert_close(torch.einsum("g,gkhw->khw", weights, found["groups"]), found["mean"])


def test_maps_of_a_quarter_grid_are_scaled_before_they_are_averaged() -> None:
    """The published order; a loud layer must not drown the others, as it does in a mean of raw maps."""
    reducer, raw = ScaledQuarter(), MeanOverLayers()
    quiet, loud = torch.zeros(1, 1, 16), torch.zeros(1, 1, 16)
    quiet[..., 5], loud[..., 10] = 0.01, 1.0
    for name, maps in (
        ("down", quiet),
        ("up", loud),
        ("up too", torch.rand(1, 1, 256)),
        ("flat", torch.ones(1, 1, 16)),
    ):
        reducer.add(name, maps)
    for maps in (quiet, loud):
        raw.add("x", maps)
    found = reducer.take((16, 16))
    assert found.shape == (1, 1, 4, 4)
    assert found.flatten()[[5, 10]].tolist() == pytest.approx([1 / 3, 1 / 3]), "a constant map adds nothing"
    plain = raw.take((4, 4)).flatten()
    assert plain[5] < 0.02 * plain[10]
    assert quarter_grid([4096, 1024, 256, 64], (64, 64)) == 256, "16 x 16 of an image of 512 pixels"
    assert quarter_grid([16, 4], (6, 6)) == 4


# ---- inversion ------------------------------------------------------------------------------------------------------


def test_the_specification_s_times_of_the_inversion() -> None:
    times = inversion_times()
    assert (len(times), times[0], times[1], times[-1]) == (334, 0, 3, 999)
    assert read_times(times) == times[120:180] == list(range(360, 540, 3))
    assert inversion_cost(times) == (179, 60)
    with pytest.raises(UserError, match="take 6 or more"):
        read_times(inversion_times(3))
    with pytest.raises(UserError, match="inversion_steps is 0"):
        inversion_times(0)


def published_inversion(
    model: LatentDiffusion, start: Tensor, text: str, groups: Tensor, times: list[int]
) -> dict[int, Tensor]:
    """As published: both halves at every step, in one batch; t -> maps (layers, K, h, w) of the half with the text."""
    schedule, step = model.noise_schedule, times[1] - times[0]
    both = model.encode_texts(["", text])
    x, found = start[None], {}
    layers = EachLayer()
    with torch.no_grad(), CrossAttentionRecorder(model.unet, layers) as recorder:
        for t in times:
            recorder.groups = torch.stack([groups, groups])
            output = model.unet(torch.cat([x, x]), torch.tensor([t, t]), **both.arguments()).sample
            found[t] = recorder.take(x.shape[-2:])[1]
            told = output[:1]  # guidance of 0: the half without text
            alpha = torch.ones(()) if t - step < 0 else schedule.alphas_cumprod[t - step]
            if schedule.prediction_type == "v_prediction":
                clean, noise = (
                    alpha.sqrt() * x - (1 - alpha).sqrt() * told,
                    alpha.sqrt() * told + (1 - alpha).sqrt() * x,
                )
            else:
                clean, noise = (x - (1 - alpha).sqrt() * told) / alpha.sqrt(), told
            then = schedule.alphas_cumprod[t]
            x = then.sqrt() * clean + (1 - then).sqrt() * noise
    return found


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_what_is_left_out_of_the_inversion_changes_no_map(model: LatentDiffusion, kind: str) -> None:
    own = LatentDiffusion(model.unet, model.text_encoder, NoiseSchedule(kind)).eval()  # type: ignore[arg-type]
    times, groups = inversion_times(20), all_tokens(TOKENIZER, PHRASE)[None]
    expected = published_inversion(own, latents(), PHRASE, groups, times)
    with CountedPasses(own) as counted:
        ways = inverted(own, torch.stack([latents(1), latents()]), times)
        maps = recorded(own, ways[1]._replace(text=PHRASE), groups, EachLayer())
    assert counted.samples == 2 * inversion_cost(times)[0] + inversion_cost(times)[1] < 2 * len(times)
    assert ways[1].timesteps.tolist() == read_times(times) == [400, 450, 500]
    for row, t in enumerate(read_times(times)):
        torch.testing.assert_close(maps[row], expected[t], rtol=1e-4, atol=1e-6)
    other = recorded(own, ways[0]._replace(text=PHRASE), groups, EachLayer())
    assert float((other - maps).abs().mean()) > 1e-4, "the control: another image has other maps"


# ---- a drawn image --------------------------------------------------------------------------------------------------


def test_maps_of_a_drawing_are_those_of_its_saved_path_and_of_the_half_with_the_text(model: LatentDiffusion) -> None:
    """Published recorders keep row 0 of a batch, which is the half without text: it would not know the prompt."""
    times = drawn_times(5)
    rows = {text: content_tokens(TOKENIZER, text).weights for text in (PHRASE, "a large round heart")}
    groups = torch.stack(list(rows.values()))[:, None]

    def maps(texts: list[str], groups: Tensor) -> Tensor:
        keys = [f"key {k}" for k in range(len(texts))]
        return torch.stack(list(drawn_maps(model, texts, keys, groups, times, EachLayer(), 3, 2.0)))

    with CountedPasses(model) as counted:
        found = maps(list(rows), groups)  # (S, B, layers, 1, h, w)
    assert counted.samples == 2 * 2 * len(times)
    paths = generate(model, list(rows), times, ["key 0", "key 1"], 3, 2.0)
    for k, text in enumerate(rows):
        kept = recorded(model, paths[k], rows[text][None], EachLayer())
        torch.testing.assert_close(found[:, k], kept, rtol=1e-4, atol=1e-6)
    silent = recorded(model, paths[0].at(range(5)), rows[PHRASE][None], EachLayer())
    empty = _without_text(model, paths[0].noisy, times, rows[PHRASE])
    assert float((silent - empty).abs().mean()) > 1e-4, "the control: the half without text has other maps"


def _without_text(model: LatentDiffusion, noisy: Tensor, times: list[int], row: Tensor) -> Tensor:
    class Silent:
        text, timesteps = "", torch.tensor(times)

        def __init__(self) -> None:
            self.noisy = noisy

    return recorded(model, Silent(), row[None], EachLayer())


def test_times_of_a_drawing_end_in_the_paper_s() -> None:
    assert drawn_times()[0] == 981
    assert late_times(drawn_times()) == paper_timesteps()
    assert late_times(drawn_times(10)) == [701, 601, 501, 401, 301, 201, 101, 1]
    with pytest.raises(UserError, match="bbm_steps is 501"):
        drawn_times(501)


def test_noising_is_that_of_the_grounding_pass(model: LatentDiffusion) -> None:
    row = content_tokens(TOKENIZER, PHRASE).weights[None]
    item, steps = GroundingItem("a", latents(), PHRASE, row), paper_timesteps(3)
    expected = torch.stack([one.maps for one in grounding_pass(model, [item], steps, seed=4)])
    found = recorded(model, noised(model, item, steps, seed=4), row, MeanOverLayers())
    torch.testing.assert_close(found, expected)
