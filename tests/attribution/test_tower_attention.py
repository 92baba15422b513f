"""Every tower shows its attention while it is looked into, computes as before, and is as it was afterwards."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from meddiff.attribution.relevance import relevance
from meddiff.attribution.token_roles import word_groups
from meddiff.attribution.tower_attention import tower_attention
from meddiff.attribution.trajectory import generate
from meddiff.models.backbones import build_unet
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.models.text.tower import TextTower
from meddiff.models.text.transformers_tower import TransformersTower
from tests.builders.tiny import UNET
from tests.builders.towers import KINDS, WIDTH

TEXT = "small pleural effusion"


class Silent(TextTower):
    """A tower without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.width, self.attention_mask = ClipTokenizer(), WIDTH, False
        self.table = nn.Embedding(49408, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) -> (B, L, width)."""
        states: Tensor = self.table(tokens)
        return states

    @property
    def token_table(self) -> nn.Embedding:
        """The embeddings."""
        return self.table


def left_behind(tower: TextTower) -> list[str]:
    """What the suite has put into a tower: transformers keeps hooks of its own from the first time that it shows attention."""
    found = []
    for name, part in tower.named_modules():
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        found += [name for hook in hooks if hook.__module__.startswith("meddiff")]
        found += [name] if "meddiff" in getattr(part.__dict__.get("forward"), "__module__", "") else []
    return found


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_tower_shows_what_it_computes(kind: str, tmp_path: Path) -> None:
    tower = build_text_encoder(KINDS[kind](tmp_path).source).eval().requires_grad_(False)
    tokens = tower.tokenizer.tokenize([TEXT])[0]
    before = tower.transformer.config._attn_implementation if isinstance(tower, TransformersTower) else ""
    plain = tower(tokens)
    with torch.enable_grad(), tower_attention(tower) as seen:
        states = tower(tokens)
        assert left_behind(tower)
    torch.testing.assert_close(states.detach(), plain, rtol=1e-4, atol=1e-5)
    length = tokens.shape[1]
    assert [tuple(one.shape) for one in seen.layers] == [(1, 2, length, length)] * 2
    for one in seen.layers:
        torch.testing.assert_close(one.sum(dim=-1), torch.ones(1, 2, length))
    slopes = torch.autograd.grad(states[0, 1].square().sum(), seen.layers)
    assert all(bool(slope.abs().sum() > 0) for slope in slopes)
    assert seen.note == ""
    if isinstance(tower, TransformersTower):
        assert tower.transformer.config._attn_implementation == before
    assert not left_behind(tower)
    assert torch.equal(tower(tokens), plain)
    assert not tower(tokens).requires_grad


def test_a_tower_is_as_it_was_after_an_exception(tmp_path: Path) -> None:
    for kind in ("clip", "bert"):
        (tmp_path / kind).mkdir()
        tower = build_text_encoder(KINDS[kind](tmp_path / kind).source).eval()
        with pytest.raises(RuntimeError, match="in the middle"), tower_attention(tower):
            raise RuntimeError("in the middle")
        assert not left_behind(tower)


def test_activations_that_are_computed_again_are_not_seen_twice(tmp_path: Path) -> None:
    tower = build_text_encoder(KINDS["clip"](tmp_path).source).eval()
    tower.checkpoint_activations()
    with torch.enable_grad(), tower_attention(tower) as seen:
        states = tower(tower.tokenizer.tokenize([TEXT])[0])
    torch.autograd.grad(states.sum(), seen.layers, allow_unused=True)
    assert len(seen.layers) == 2
    assert tower.transformer.grad_checkpointing is True


@pytest.mark.parametrize("kind", ["bert", "cxr-bert", "t5"])
def test_relevance_of_the_words_of_other_towers(kind: str, tmp_path: Path) -> None:
    """Finite and of the words; where the U-Net sees no padding, padding has none."""
    tower = build_text_encoder(KINDS[kind](tmp_path).source)
    model = LatentDiffusion(
        build_unet({**UNET, "cross_attention_dim": WIDTH}), tower, NoiseSchedule("v_prediction")
    ).eval()
    walked = generate(model, [TEXT], (500,), ["a"], guidance_scale=2.0)[0]
    found = relevance(model, walked, word_groups(tower.tokenizer, TEXT)[1])
    assert found.sums.isfinite().all()
    assert found.sums.sum() > 0
    assert found.note == ""
    padding = torch.arange(tower.tokenizer.max_length) >= tower.tokenizer.length(TEXT)
    if tower.attention_mask:
        assert found.share[:, padding].eq(0).all()
    assert found.maps.shape == (1, 3, 8, 8)


def test_a_tower_that_shows_none_stands_for_itself_and_says_so() -> None:
    torch.manual_seed(0)
    model = LatentDiffusion(
        build_unet({**UNET, "cross_attention_dim": WIDTH}), Silent(), NoiseSchedule("epsilon")
    ).eval()
    walked = generate(model, [TEXT], (500,), ["a"], guidance_scale=2.0)[0]
    found = relevance(model, walked, torch.eye(77)[:3])
    assert found.sums.sum() > 0
    assert "(Silent) shows no attention" in found.note
