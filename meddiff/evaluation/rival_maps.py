"""Makers of the maps that are compared: every preset of the same model, image and phrase, as one map of the image's size.

Presets that come out of the same forward passes come out of one maker. Each is told the phrase and the image, never the box.
Source: the modules of :mod:`meddiff.attribution` that each maker names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from meddiff.attribution.attention_maps import concept_maps_of, noised
from meddiff.attribution.concepts import ConceptMode, encode_concepts
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps
from meddiff.attribution.layer_groups import GroupedLayers, LayerGroup
from meddiff.attribution.lexical import content_tokens
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import resize_maps
from meddiff.metrics.functional.layer_contrast import subset_weights
from meddiff.models.latent_diffusion import LatentDiffusion

#: Preset -> maps (H, W); those that are undefined are missing.
Maps = dict[str, Tensor]
#: Called with the number of U-Net evaluations just done.
OnProgress = Callable[[int], object]


class Asking(NamedTuple):
    """A phrase that is asked of an image.

    Attributes:
        image: a sample of the image, whose phrase the image has.
        phrase: the sample whose phrase is asked; the same unless an absent finding is asked for.
        latents: (C, h, w) of the image, scaled.
    """

    image: GroundingSample
    phrase: GroundingSample
    latents: Tensor


@dataclass
class Answer:
    """What a maker says to one asking.

    Attributes:
        maps: of each of its presets.
        groups: (G, h, w) of groups of layers, where they are wanted for the search.
    """

    maps: Maps
    groups: Tensor | None = None


class Maker(Protocol):
    """What makes maps.

    Attributes:
        name: of its forward passes.
        presets: what comes out of them.
        each: U-Net evaluations of one phrase about one image, asked alone.
    """

    name: str
    presets: tuple[str, ...]
    each: float

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """U-Net evaluations of so many phrases of so many images, and of so many askings for absent findings."""
        ...

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """An answer an asking."""
        ...


class Settings(NamedTuple):
    """What all makers share.

    Attributes:
        timesteps: of the grounding pass.
        seed: of noise.
        batch_size: rows that the U-Net gets at once; changes results by rounding only.
    """

    timesteps: list[int]
    seed: int
    batch_size: int


class WordMaps:
    """The suite's own map of the finding's words, and those of all content words, from one grounding pass.

    Attributes:
        layer_groups: the groups of layers of the last pass; known once a pass was made.
        counts: how many layers each has.
    """

    name = "words"
    presets: tuple[str, ...] = ("words", "lexical", "lexical_first")

    def __init__(self, settings: Settings) -> None:
        self.settings, self.each = settings, float(len(settings.timesteps))
        self.layer_groups: list[LayerGroup] = []
        self.counts: list[int] = []

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """One pass an asking and timestep."""
        return self.each * (phrases + absent)

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """Maps of the query words, of content words, and of the first token of each content word."""
        tokenizer, found = model.text_encoder.tokenizer, []
        rows = []
        for one in askings:
            text = one.phrase.phrase
            kinds = [query_tokens(tokenizer, text, QUERY_WORDS[one.phrase.label])]
            kinds += [content_tokens(tokenizer, text, first) for first in (False, True)]
            rows.append(torch.stack([kind.weights for kind in kinds]))  # (3, L)
        for place, maps in self._passes(model, askings, rows, told):  # maps (G, 3, h, w)
            mean = over_groups(maps, subset_weights(range(len(self.counts)), self.counts).tolist())  # (3, h, w)
            full = resize_maps(mean, askings[place].image.size)
            named = zip(self.presets, full, rows[place], strict=True)
            found.append(Answer({name: heat for name, heat, row in named if row.any()}, maps[:, 0]))
        return found

    def _passes(
        self, model: LatentDiffusion, askings: Sequence[Asking], rows: Sequence[Tensor], told: OnProgress | None
    ) -> list[tuple[int, Tensor]]:
        steps, seed, size = self.settings
        items = [
            GroundingItem(one.image.key, one.latents, one.phrase.phrase, row)
            for one, row in zip(askings, rows, strict=True)
        ]
        layers = GroupedLayers()
        passed = grounding_pass(model, items, steps, seed, size, layers, told)
        found = list(mean_over_timesteps(passed, len(steps)))
        self.layer_groups, self.counts = layers.groups, layers.counts
        return found


class ChosenLayers(WordMaps):
    """The map of the finding's words over layers that were chosen by phrases about other images.

    Args:
        chosen: key of an image -> numbers of groups.
    """

    name = "layers"
    presets: tuple[str, ...] = ("layers",)

    def __init__(self, settings: Settings, chosen: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__(settings)
        self.chosen = chosen

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """One map an asking."""
        tokenizer = model.text_encoder.tokenizer
        rows = [query_tokens(tokenizer, one.phrase.phrase, QUERY_WORDS[one.phrase.label]).weights for one in askings]
        found = []
        for place, maps in self._passes(model, askings, [row[None] for row in rows], told):  # maps (G, 1, h, w)
            image = askings[place].image
            weights = subset_weights(self.chosen(image.key), self.counts).tolist()
            full = resize_maps(over_groups(maps, weights), image.size)
            found.append(Answer({"layers": full[0]} if rows[place].any() else {}))
        return found


class ConceptMaps:
    """The finding as a concept beside the image's own phrase (:mod:`meddiff.attribution.concepts`).

    All classes are concepts of one pass, so that asking for an absent finding takes none more.
    """

    def __init__(self, settings: Settings, mode: ConceptMode) -> None:
        self.settings, self.mode, self.each = settings, mode, float(len(settings.timesteps))
        self.name = f"concept_{mode}"
        self.presets: tuple[str, ...] = (self.name,)

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """One pass a phrase and timestep."""
        return self.each * phrases

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """The map of the asked class under the prompt that the image has."""
        steps, seed, size = self.settings
        classes = list(QUERY_WORDS)
        concepts = encode_concepts(model, [name.lower() for name in classes], self.mode)
        passed: dict[tuple[str, str], Tensor] = {}
        found = []
        for one in askings:
            place = (one.image.key, one.image.phrase)
            if place not in passed:
                item = GroundingItem(one.image.key, one.latents, one.image.phrase, torch.empty(0, 0))
                path = noised(model, item, steps, seed)
                passed[place] = concept_maps_of(model, path, concepts, size, told).mean(dim=0)  # (C, h, w)
            heat = passed[place][classes.index(one.phrase.label)]
            found.append(Answer({self.name: resize_maps(heat[None], one.image.size)[0]}))
        return found


def over_groups(maps: Tensor, weights: Sequence[float]) -> Tensor:
    """(G, K, h, w) -> (K, h, w), the weighted sum over groups of layers."""
    return torch.einsum("g,gkhw->khw", torch.tensor(weights, dtype=maps.dtype), maps)
