"""Makers of the maps of two published protocols that take passes of their own: a merge with a drawn image, and an inversion.

Sources: Nuetzel et al., Generate to ground, 2025; Vilouras et al., zero-shot phrase grounding with a latent diffusion model.
What differs from their code: docs/rivals.md.
"""

from collections.abc import Mapping, Sequence

import torch

from meddiff.attribution.attention_maps import Noisy, noised, recorded
from meddiff.attribution.generated_attention import drawn_maps, drawn_times, late_times
from meddiff.attribution.grounding_pass import GroundingItem
from meddiff.attribution.inverted_attention import inversion_cost, inversion_times, inverted
from meddiff.attribution.layer_groups import ScaledQuarter
from meddiff.attribution.lexical import all_tokens, content_tokens
from meddiff.attribution.recorder import EachLayer
from meddiff.attribution.words import special_tokens
from meddiff.common.errors import UserError
from meddiff.evaluation.rival_maps import Answer, Asking, OnProgress, Settings
from meddiff.metrics.functional import min_max, resize_maps
from meddiff.metrics.functional.map_filters import otsu_zeroed, smoothed
from meddiff.metrics.functional.map_fusion import Product, bbm_mix, likeness, map_product, scaled
from meddiff.models.latent_diffusion import LatentDiffusion

#: Width of the Gaussian over inverted maps, in pixels of an image of 512.
SIGMA, SIDE = 2.5, 512


class Merged:
    """``bbm`` and ``bbm_elementwise``: maps of the real image, and those of an image drawn for the same phrase.

    Of S steps: A is the mean over the last four fifths of the content words' map of the real image, M that over all steps and
    layers of the start token's map of the real image times the words' map of the drawn one; the share of each is how alike the
    two are (:mod:`meddiff.metrics.functional.map_fusion`).
    """

    name = "bbm"
    presets: tuple[str, ...] = ("bbm", "bbm_elementwise")

    def __init__(self, settings: Settings, steps: int, guidance_scale: float) -> None:
        self.settings, self.times, self.guidance_scale = settings, drawn_times(steps), guidance_scale
        self.each = float(len(self.times) * (1 + 2))  # the real image, and a drawn one under guidance

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """A pass of the real image and two of a drawn one, an asking and step."""
        return self.each * (phrases + absent)

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """Both merges.

        Raises:
            UserError: a text encoder without a start token.
        """
        tokenizer, (_, seed, size) = model.text_encoder.tokenizer, self.settings
        if not tokenizer.starts:
            raise UserError(
                "bbm multiplies with the start token's map, and this text encoder has no such token: leave bbm and "
                "bbm_elementwise out of --rivals.presets."
            )
        texts = [one.phrase.phrase for one in askings]
        words = torch.stack([content_tokens(tokenizer, text).weights for text in texts])  # (B, L)
        start = torch.stack([special_tokens(tokenizer, text)["start"] for text in texts])
        late, layers = len(self.times) - len(late_times(self.times)), EachLayer()
        real = []  # of each asking (S, layers, 2, h, w): start token, words
        for k, one in enumerate(askings):
            path = noised(model, GroundingItem(one.image.key, one.latents, texts[k], words), self.times, seed)
            real.append(recorded(model, path, torch.stack([start[k], words[k]]), layers, size, told))
        own = torch.stack([maps[late:, :, 1].mean(dim=(0, 1)) for maps in real])  # (B, h, w)
        first = torch.stack([maps[:, :, 0] for maps in real])  # (B, S, layers, h, w)
        keys = [one.image.key for one in askings]
        passed = drawn_maps(
            model, texts, keys, words[:, None], self.times, EachLayer(), seed, self.guidance_scale, told
        )
        drawn = torch.stack([maps[:, :, 0] for maps in passed], dim=1)  # (B, S, layers, h, w)
        share = likeness(first.mean(dim=(1, 2)), drawn.mean(dim=(1, 2)))  # (B,)
        products: Mapping[str, Product] = {"bbm": "matrix", "bbm_elementwise": "elementwise"}
        merged = {
            name: bbm_mix(scaled(own), scaled(map_product(first, drawn, product).mean(dim=(1, 2))), share)
            for name, product in products.items()
        }
        sizes = [one.image.size for one in askings]
        return [
            Answer(
                {name: resize_maps(maps[k : k + 1], sizes[k])[0] for name, maps in merged.items()} if row.any() else {}
            )
            for k, row in enumerate(words)
        ]


class InvertedMaps:
    """``ldm_inversion``: all words of the phrase along the inversion of the image, layers of one grid, each map in 0..1 before
    their mean; smoothed, and cut by Otsu (``ldm_inversion``) or not (``ldm_inversion_uncut``)."""

    name = "ldm_inversion"
    presets: tuple[str, ...] = ("ldm_inversion", "ldm_inversion_uncut")

    def __init__(self, settings: Settings, steps: int) -> None:
        self.settings, self.times = settings, inversion_times(steps)
        self.way, self.read = inversion_cost(self.times)
        self.each = float(self.way + self.read)
        self._ways: dict[str, Noisy] = {}

    def cost(self, phrases: int, absent: int, images: int) -> float:
        """The way up of each image once, and the text at the steps that are read, an asking."""
        return float(self.way * images + self.read * (phrases + absent))

    def answers(
        self, model: LatentDiffusion, askings: Sequence[Asking], told: OnProgress | None = None
    ) -> list[Answer]:
        """Both maps."""
        new = {one.image.key: one.latents for one in askings if one.image.key not in self._ways}
        # phrases of one image follow one another: of those before only the last may come again
        self._ways = {one.image.key: way for one in askings if (way := self._ways.get(one.image.key)) is not None}
        if new:
            ways = inverted(model, torch.stack(list(new.values())), self.times, told)
            self._ways |= dict(zip(new, ways, strict=True))
        found = []
        for one in askings:
            weights = all_tokens(model.text_encoder.tokenizer, one.phrase.phrase)
            path = self._ways[one.image.key]._replace(text=one.phrase.phrase)
            maps = recorded(model, path, weights[None], ScaledQuarter(), self.settings.batch_size, told)  # (S, 1, r, c)
            full = smoothed(resize_maps(maps.mean(dim=0), one.image.size), SIGMA * one.image.size[0] / SIDE)
            both = (otsu_zeroed(full)[0], min_max(full)[0])
            found.append(Answer(dict(zip(self.presets, both, strict=True)) if weights.any() else {}))
        return found
