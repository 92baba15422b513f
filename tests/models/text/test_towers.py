"""Every kind of text tower keeps the same promises: its words, its special tokens, its padding, its weights."""

import unicodedata
from pathlib import Path

import pytest
import torch

from meddiff.attribution.words import query_tokens, special_tokens
from meddiff.models.text.build import build_text_encoder, misfit
from meddiff.models.text.offset_tokenizer import OffsetTokenizer
from meddiff.models.text.tower import TextTower
from meddiff.runs.names import SPECIAL_TOKENS
from tests.builders.towers import KINDS, TEXTS, WIDTH, Kind

Made = tuple[Kind, TextTower]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(str(request.param))
    kind = KINDS[str(request.param)](folder)
    torch.manual_seed(0)
    return kind, build_text_encoder(kind.source).eval()


def spelled(tower: TextTower, ids: list[int]) -> str:
    """Pieces put together, without what marks their place in a word."""
    from meddiff.models.weights.clip_tokenizer_files import vocabulary

    if isinstance(tower.tokenizer, OffsetTokenizer):
        from tokenizers import Tokenizer

        backend = Tokenizer.from_str(tower.tokenizer.serialized)
        pieces = [backend.id_to_token(one) for one in ids]
        if any("\u0120" in token or "\u00c3" in token for token in pieces):  # bytes
            from tokenizers.decoders import ByteLevel

            return str(ByteLevel().decode(pieces)).strip()
        return "".join(piece.removeprefix("##").removeprefix("\u2581") for piece in pieces)
    names = {number: token for token, number in vocabulary().items()}
    from open_clip.tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    return bytes(byte_of[c] for one in ids for c in names[one].removesuffix("</w>")).decode()


def plain(word: str, accents: bool) -> str:
    """Lower case; without accents if the tokenizer takes them off."""
    parts = unicodedata.normalize("NFD", word.lower())
    return word.lower() if accents else "".join(c for c in parts if not unicodedata.combining(c))


def test_words_are_those_of_the_text_and_their_pieces_spell_them(made: Made) -> None:
    _, tower = made
    several = 0
    for text in TEXTS:
        ids, words = list(tower.tokenizer.ids(text)), tower.tokenizer.words(text)
        assert [word.text for word in words] == text.split()
        places = [place for word in words for place in range(word.start, word.stop)]
        assert places == sorted(set(places)), "every piece belongs to one word, in the order of the text"
        assert all(tower.tokenizer.starts <= place < len(ids) - 1 for place in places), "special tokens to none"
        for word in words:
            found = spelled(tower, ids[word.start : word.stop])
            several += word.stop - word.start > 1
            if "[UNK]" not in found and "<unk>" not in found:
                assert found.lower() in (plain(word.text, True), plain(word.text, False))
        assert tower.tokenizer.ids(text) == tuple(ids)
    assert several >= 8, "few words fall into pieces: the test would show little"


def test_transformers_own_tokenizer_and_tower_give_the_same(made: Made) -> None:
    kind, tower = made
    if kind.reference is None:
        pytest.skip("the suite's own tower has no other maker")
    model, tokenizer = kind.reference()
    length = tower.tokenizer.max_length
    theirs = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    tokens, truncated = tower.tokenizer.tokenize(TEXTS)
    assert truncated == 0
    assert torch.equal(tokens, theirs["input_ids"])
    if "attention_mask" in theirs and tower.tokenizer.pad_id != tower.tokenizer.end_id:
        assert torch.equal(tower.tokenizer.mask(tokens).long(), theirs["attention_mask"])
    mask = theirs["attention_mask"] if getattr(tower, "mask_padding", False) else None
    with torch.no_grad():
        expected = model(input_ids=theirs["input_ids"], attention_mask=mask).last_hidden_state
        torch.testing.assert_close(tower(tokens), expected, rtol=1e-5, atol=1e-5)
        # the control: another order of the same weights' texts is another thing
        assert (tower(tokens.flip(0)) - expected).abs().max() > 1e-2


def test_long_texts_are_cut_counted_and_end_with_the_end_token(made: Made) -> None:
    tokenizer = made[1].tokenizer
    text = "left " * tokenizer.max_length + "edema"
    tokens, truncated = tokenizer.tokenize([text, "left"])
    assert truncated == 1
    assert tokens.shape == (2, tokenizer.max_length)
    assert tokens[0, -1] == tokenizer.end_id
    assert (tokens[0, :-1] != tokenizer.end_id).all()
    assert tokenizer.mask(tokens)[0].all()
    cut = query_tokens(tokenizer, text, ("edema",))
    assert cut.truncated == ("edema",)
    assert not cut.weights.any()
    assert torch.isfinite(made[1](tokens)).all()


def test_start_end_and_padding_share_the_length_with_the_words(made: Made) -> None:
    tokenizer = made[1].tokenizer
    text = TEXTS[1]
    special, length = special_tokens(tokenizer, text), len(tokenizer.ids(text))
    assert special["start"].nonzero().flatten().tolist() == list(range(tokenizer.starts))
    assert special["end"].nonzero().flatten().tolist() == [length - 1]
    assert special["padding"].nonzero().flatten().tolist() == list(range(length, tokenizer.max_length))
    tokens, _ = tokenizer.tokenize([text])
    assert (tokens[0][special["padding"] > 0] == tokenizer.pad_id).all()
    assert tokenizer.mask(tokens)[0].tolist() == [place < length for place in range(tokenizer.max_length)]
    assert set(tokenizer.names) <= set(SPECIAL_TOKENS)
    query = query_tokens(tokenizer, text, ("effusion",))
    assert query.words == ("effusions",)
    assert not (query.weights * (special["start"] + special["end"] + special["padding"])).any()


def test_special_tokens_spelled_out_in_a_text_are_text(made: Made) -> None:
    tokenizer = made[1].tokenizer
    if not isinstance(tokenizer, OffsetTokenizer):
        pytest.skip("open_clip reads its own special tokens in texts")
    around = tokenizer.ids("")
    for one in ("[SEP]", "[PAD] left", "</s>", "<pad> left", "<|endoftext|>"):
        assert not set(tokenizer.ids(one)[tokenizer.starts : -1]) & {around[0], around[-1], tokenizer.pad_id}


def test_padding_is_seen_only_where_the_tower_was_made_to_see_it(made: Made) -> None:
    tower = made[1]
    tokens, _ = tower.tokenizer.tokenize(["left effusion"])
    inside = tower.tokenizer.mask(tokens)[0]
    other = tokens.clone()
    other[0, ~inside] = tokens[0, inside][1]
    with torch.no_grad():
        # the mask is told from the first end token on: other padding stays padding
        before, after = tower(tokens)[0, inside], tower(other)[0, inside]
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_without_its_mask_a_bert_attends_to_padding(tmp_path: Path) -> None:
    """The control of the test above; and what ``StableDiffusionPipeline`` does unless the tower's config says otherwise."""
    source = KINDS["bert"](tmp_path).source
    assert isinstance(source, dict)
    masked, seeing = (build_text_encoder({**source, "mask_padding": kept}).eval() for kept in (True, False))
    tokens, _ = masked.tokenizer.tokenize(["left effusion"])
    with torch.no_grad():
        assert (masked(tokens) - seeing(tokens))[0, masked.tokenizer.mask(tokens)[0]].abs().max() > 1e-3


def test_a_tower_is_made_again_from_what_a_checkpoint_holds(made: Made) -> None:
    import json

    _, tower = made
    again = build_text_encoder(json.loads(json.dumps(tower.config))).eval()
    again.load_state_dict(tower.state_dict())
    assert again.config == tower.config
    tokens, _ = again.tokenizer.tokenize(TEXTS)
    assert torch.equal(tokens, tower.tokenizer.tokenize(TEXTS)[0])
    assert torch.equal(again(tokens), tower(tokens))
    assert (again.width, again.attention_mask) == (tower.width, tower.attention_mask) == (WIDTH, tower.attention_mask)


def test_a_tower_that_was_saved_is_read_again_bit_for_bit(made: Made, tmp_path: Path) -> None:
    _, tower = made
    tower.save(tmp_path)
    assert misfit(str(tmp_path)) is None
    again = build_text_encoder(str(tmp_path)).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in tower.state_dict().items())
    tokens, _ = again.tokenizer.tokenize(TEXTS)
    assert torch.equal(tokens, tower.tokenizer.tokenize(TEXTS)[0])
    assert torch.equal(again(tokens), tower(tokens))
    assert again.attention_mask == tower.attention_mask
    tower.save(tmp_path / "half", half=True)
    rounded = build_text_encoder(str(tmp_path / "half"))
    assert all(
        torch.equal(value.half().float() if value.is_floating_point() else value, rounded.state_dict()[name])
        for name, value in tower.state_dict().items()
    )


def test_every_parameter_reaches_the_output(made: Made) -> None:
    """One that gets no gradient stops plain DDP."""
    kind, tower = made
    tower.train().requires_grad_(True)
    states = tower(tower.tokenizer.tokenize(TEXTS)[0])
    (states * torch.randn(states.shape)).sum().backward()
    lacking = [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # the key's bias shifts all scores alike: its gradient is zero but for rounding
    assert [name for name in lacking if "key.bias" not in name and "k_proj.bias" not in name] == []
    assert all(p.grad is not None for p in tower.parameters())
    tower.zero_grad(set_to_none=True)
    tower.eval()
    assert kind.dropout is any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in tower.modules())
