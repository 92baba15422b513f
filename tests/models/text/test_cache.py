"""States of texts that are kept: the same bits whatever else is kept, never of a tower that trains, never of old weights."""

import pytest
import torch
from torch import Tensor

from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.cache import TextCache
from meddiff.models.text.tower import TextTower
from tests.builders.tiny import TEXT, UNET

TEXTS = [f"Small effusion on the left, {number} days old." for number in range(6)]
STATES = 4 * 77 * 16  # bytes of one text's


def frozen_tower(seed: int = 0) -> TextTower:
    torch.manual_seed(seed)
    return build_text_encoder(TEXT).requires_grad_(False).eval()


def tokens_of(tower: TextTower, texts: list[str]) -> Tensor:
    return tower.tokenizer.tokenize(texts)[0]


def one_by_one(tower: TextTower, texts: list[str]) -> Tensor:
    with torch.no_grad():
        return torch.cat([tower(tokens_of(tower, [text])) for text in texts])


def test_states_do_not_depend_on_what_is_kept_or_asked_for_together() -> None:
    tower = frozen_tower()
    expected = dict(zip(TEXTS, one_by_one(tower, TEXTS), strict=True))
    for limit in (0, STATES, 3 * STATES, 100 * STATES):
        cache = TextCache(limit)
        for asked in (TEXTS[:3], TEXTS[2:6], [TEXTS[4], TEXTS[0], TEXTS[4]], TEXTS):
            states = cache(tower, tokens_of(tower, asked))
            assert torch.equal(states, torch.stack([expected[text] for text in asked]))
            assert not states.requires_grad
            assert cache.size <= max(limit, STATES)
            assert cache.size == len(cache) * STATES


def test_what_was_used_last_is_kept() -> None:
    tower = frozen_tower()
    cache = TextCache(2 * STATES)
    for asked, encoded in ((TEXTS[0], 1), (TEXTS[1], 2), (TEXTS[0], 2), (TEXTS[2], 3), (TEXTS[0], 3), (TEXTS[1], 4)):
        cache(tower, tokens_of(tower, [asked]))
        assert cache.encoded == encoded, asked
    unbounded = TextCache(100 * STATES)
    for _ in range(3):
        unbounded(tower, tokens_of(tower, [*TEXTS, *TEXTS]))
    assert unbounded.encoded == len(TEXTS)


def test_states_of_changed_weights_are_forgotten() -> None:
    tower, other = frozen_tower(), frozen_tower(1)
    cache, tokens = TextCache(10**6), tokens_of(frozen_tower(), TEXTS)
    first = cache(tower, tokens)
    tower.load_state_dict(other.state_dict())
    assert torch.equal(cache(tower, tokens), one_by_one(other, TEXTS))
    assert not torch.equal(first, cache(tower, tokens))
    with torch.no_grad():
        tower.token_table.weight[:, 0] += 1.0  # as a swapped average writes
    assert torch.equal(cache(tower, tokens), one_by_one(tower, TEXTS))
    tower.load_state_dict(frozen_tower().state_dict(), assign=True)
    assert torch.equal(cache(tower, tokens), first)
    assert torch.equal(cache(other, tokens), one_by_one(other, TEXTS))  # another tower altogether
    # the control: as long as nothing changes nothing is encoded again
    before = cache.encoded
    cache(other, tokens)
    assert cache.encoded == before


def test_half_precision_has_states_of_its_own() -> None:
    tower = frozen_tower()
    cache, tokens = TextCache(10**6), tokens_of(frozen_tower(), TEXTS)
    plain = cache(tower, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cache(tower, tokens)
    assert torch.equal(cache(tower, tokens), plain)
    assert not torch.equal(rounded.float(), plain)
    halves = cache(tower.bfloat16(), tokens)
    assert halves.dtype == torch.bfloat16  # the tower's own


def model_with_cache(frozen: bool) -> LatentDiffusion:
    model = LatentDiffusion.build(UNET, TEXT, freeze_text_encoder=frozen).train()
    model.text_cache = TextCache(10**6)
    return model


def test_a_model_encodes_a_text_once_and_trains_on_states_of_a_validation() -> None:
    model = model_with_cache(frozen=True)
    assert model.text_cache is not None
    with torch.inference_mode():
        model.encode_texts(TEXTS[:2])
    tokens = tokens_of(model.text_encoder, TEXTS[:2])
    model(torch.randn(2, 4, 8, 8), torch.tensor([5, 9]), tokens).square().mean().backward()
    assert model.text_cache.encoded == 2
    assert torch.equal(model.encode_texts(TEXTS[:2]).states, one_by_one(model.text_encoder, TEXTS[:2]))


@pytest.mark.parametrize("why", ["learnable", "in train mode", "thawed"])
def test_a_tower_that_may_change_is_never_kept(why: str) -> None:
    model = model_with_cache(frozen=why != "learnable")
    assert model.text_cache is not None
    model.encode_texts(TEXTS[:1])
    encoded = model.text_cache.encoded
    if why == "in train mode":
        model.text_encoder.train()
    elif why == "thawed":
        model.freeze_text_encoder = False
        model.text_encoder.requires_grad_(True)
    before = model.encode_texts(TEXTS[:1])
    assert model.text_cache.encoded == encoded == (0 if why == "learnable" else 1)
    assert before.states.requires_grad is (why != "in train mode")
    with torch.no_grad():
        model.text_encoder.token_table.weight.mul_(2.0)
    assert not torch.equal(model.encode_texts(TEXTS[:1]).states, before.states)
