"""Captions of phantoms without their pictures, and towers in which something is planted."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from meddiff.common.draws import torch_seed
from meddiff.evaluation.mechanism_states import Caption
from meddiff.models.text.build import build_text_encoder
from meddiff.models.text.tower import TextTower
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.mentions import mentions
from tests.builders.tiny import TEXT


@lru_cache(maxsize=1)
def grammar_captions(n: int) -> tuple[Caption, ...]:
    """Captions with their mentions, those without any left out."""
    cohort = PhantomCohort(PhantomOptions(n=n, val=0, grounding=0, fidelity=0, normal=0.1, outlines="own", boxes="own"))
    found = []
    for index in range(n):
        scene = cohort.scene(index)
        text = cohort.report(index, scene).impression
        facts = {one.label: {"side": one.side, "severity": one.severity} for one in scene.findings}
        found.append(Caption(cohort.key(index), text, mentions(text, facts)))
    return tuple(one for one in found if one.mentions)


def small_tower(seed: int = 0) -> TextTower:
    """A tower of random weights whose words stay words."""
    torch.manual_seed(seed)
    return build_text_encoder({**TEXT, "width": 32, "embedding_std": 0.5}).eval()


class ChangedTower(TextTower):
    """Another tower whose states are changed where some token ids stand.

    Args:
        ids: the tokens.
        noise: overwrite the states there with noise, another one at each use.
        move: else add this vector (width,) there.
    """

    def __init__(self, inner: TextTower, ids: set[int], move: Tensor | None = None) -> None:
        super().__init__()
        self.inner, self.ids, self.move = inner, ids, move
        self.tokenizer, self.width, self.config = inner.tokenizer, inner.width, inner.config
        self.attention_mask, self.used = inner.attention_mask, 0

    def forward(self, tokens: Tensor) -> Tensor:
        """States of the inner tower, changed."""
        states: Tensor = self.inner(tokens)
        at = torch.isin(tokens, torch.tensor(sorted(self.ids)))[..., None]
        if self.move is not None:
            return states + at * self.move
        self.used += 1
        draw = torch.Generator().manual_seed(torch_seed(0, "planted noise", self.used))
        return torch.where(at, torch.randn(states.shape, generator=draw), states)

    @property
    def token_table(self) -> nn.Embedding:
        """Of the inner tower."""
        return self.inner.token_table

    def checkpoint_activations(self) -> None:
        """Nothing trains here."""

    def save(self, folder: object, half: bool = False) -> None:
        """Nothing is kept."""
