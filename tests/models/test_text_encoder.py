"""The text tower against two independent implementations: transformers' and open_clip's own."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from meddiff.common.errors import UserError
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.clip_tokenizer import END_ID, ClipTokenizer
from meddiff.models.text.clip_tower import ClipTower
from meddiff.phantoms.openi import read_reports

TOKENIZER = ClipTokenizer()

CAPTIONS = ["Large right pleural effusion.", "", "No acute cardiopulmonary process. Heart size is normal."]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A transformers CLIPTextModel as a diffusers pipeline stores it."""
    torch.manual_seed(3)
    config = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=128,
        num_attention_heads=4,
        num_hidden_layers=3,
        hidden_act="gelu",
        eos_token_id=49407,
        bos_token_id=49406,
        pad_token_id=0,
    )
    model = CLIPTextModel(config).eval()
    folder = tmp_path_factory.mktemp("pipeline")
    model.save_pretrained(folder / "text_encoder", safe_serialization=True)
    return folder, model


def test_equals_transformers(clip_folder):
    folder, reference = clip_folder
    ours = build_text_encoder(str(folder)).eval()
    tokens, _ = TOKENIZER.tokenize(CAPTIONS)
    with torch.no_grad():
        expected = reference(input_ids=tokens).last_hidden_state
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-5)


def test_equals_open_clip_penultimate(tmp_path):
    torch.manual_seed(1)
    reference = open_clip.create_model("ViT-S-32-alt").eval()  # a small tower: 10 blocks, 256 wide
    path = tmp_path / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, path)
    ours = build_text_encoder({"arch": "ViT-S-32-alt", "checkpoint": str(path)}).eval()
    tokens, _ = TOKENIZER.tokenize(CAPTIONS)
    with torch.no_grad():
        x = reference.token_embedding(tokens) + reference.positional_embedding
        for block in list(reference.transformer.resblocks)[:-1]:
            x = block(x, attn_mask=reference.attn_mask)
        expected = reference.ln_final(x)
        last = reference.ln_final(list(reference.transformer.resblocks)[-1](x, attn_mask=reference.attn_mask))
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-5)
    # The control: the last block's output is another thing, so the equality above is not vacuous.
    assert (last - expected).abs().max() > 0.1


@pytest.mark.parametrize(("act", "pad"), [("quick_gelu", END_ID), ("gelu", 0)])
def test_50_real_captions_have_the_same_states_in_transformers_and_open_clip(tmp_path, act, pad):
    """Tokenizer and tower of transformers on one side, ours (open_clip's) on the other, every position, padding included."""
    from transformers import CLIPTokenizer

    torch.manual_seed(5)
    ours = ClipTower(32, 4, 3, act, pad_id=pad, embedding_std=0.5, position_std=0.1).eval()
    ours.save(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    theirs = CLIPTextModel.from_pretrained(tmp_path / "text_encoder").eval()
    reports = read_reports()
    captions = list(dict.fromkeys(one.impression for one in (*reports.normal[:10], *reports.abnormal)))[:50]
    assert len(captions) == 50
    ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state
        states = ours(ours.tokenizer.tokenize(captions)[0])
        torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
        # the control: the other padding is heard behind the end token, so what stands there was compared
        other = ClipTower(32, 4, 3, act, pad_id=END_ID - pad, embedding_std=0.5, position_std=0.1).eval()
        other.load_state_dict(ours.state_dict())
        assert (other(other.tokenizer.tokenize(captions)[0]) - expected).abs().max() > 0.1


def test_every_parameter_reaches_the_output():
    encoder = ClipTower(width=16, heads=2, layers=2)
    encoder(TOKENIZER.tokenize(CAPTIONS)[0]).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_tokens_end_with_zeros_and_match_open_clip():
    tokens, truncated = TOKENIZER.tokenize(CAPTIONS)
    assert tokens.shape == (3, 77)
    assert truncated == 0
    assert torch.equal(tokens, open_clip.tokenizer.tokenize(CAPTIONS))
    end = len(TOKENIZER.ids(CAPTIONS[0]))
    assert tokens[0, end - 1] == 49407
    assert (tokens[0, end:] == 0).all()


def test_causal_words_do_not_see_what_follows():
    encoder = ClipTower(width=16, heads=2, layers=2).eval()
    short, long = (
        TOKENIZER.tokenize(["right effusion"])[0],
        TOKENIZER.tokenize(["right effusion and left pneumothorax"])[0],
    )
    with torch.no_grad():
        a, b = encoder(short), encoder(long)
    end = len(TOKENIZER.ids("right effusion")) - 1
    torch.testing.assert_close(a[:, :end], b[:, :end])
    assert (a[:, end] - b[:, end]).abs().max() > 1e-3  # the end token against "and"


def test_long_caption_is_cut_and_counted():
    text = "effusion " * 200
    tokens, truncated = TOKENIZER.tokenize([text, "short"])
    assert truncated == 1
    assert tokens[0, -1] == 49407
    assert (tokens[0] != 0).all()
    assert torch.isfinite(ClipTower(width=16, heads=2, layers=1)(tokens)).all()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"arch": "no-such-arch"}, "knows no architecture"),
        ({"width": 10, "heads": 3, "layers": 1}, "not divisible"),
        ({"width": 16, "heads": 2, "layers": 1, "act": "tanh"}, "must be"),
        ({"width": 16, "heads": 2, "layers": 1, "colour": 1}, "it takes width"),
        ("nowhere/at/all", "no weights at"),
        ({"arch": "ViT-H-14", "checkpoint": "nowhere.pt"}, "no open_clip checkpoint"),
    ],
)
def test_bad_sources_get_one_sentence(source, words):
    with pytest.raises(UserError, match=words):
        build_text_encoder(source)
