"""What a list of timesteps does to the images that are drawn along it, and to where words point at its timesteps.

Each schedule draws the same captions from the same noise, by the same stateless DDIM with the same number of steps, so that
the list is all that differs; the model's own sampler stands beside them, and *real against real* below them. Grounding
noises real images to a schedule's own timesteps and averages the maps over them: asked for their finding, and for one that they
do not have. Table ``schedules`` has a row a schedule.

Source: Park, Ju and Lee (2024), exponential time-step sampling, of which they show images; distances and grounding are own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps
from meddiff.attribution.schedules import GAMMA, SCHEDULES, Schedule, schedule
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.common.errors import UserError, refuse
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, NOT_NEGATIVE, Range, check_ranges
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.drawing import draw_prompts, folder_needed, read_images, signed
from meddiff.evaluation.feature_cache import Features, cache_folder, measure, real_features
from meddiff.evaluation.fidelity import FidelityOptions
from meddiff.evaluation.gain import Gains, absent_findings, absent_maps
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, evaluation_latents, grounding_samples
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.fidelity import FrechetFeatureDistance
from meddiff.metrics.functional import resize_maps
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.feature_extractors import EXTRACTORS, Extractor, build_extractor, missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

#: Rows that are no schedule.
SAMPLER, REAL = "sampler", "real_vs_real"
FIRST = ("schedule", "gamma", "steps", "first", "last", "cnr", "gain_absent", "gain_low", "gain_high", "phrases", "n")


@dataclass(frozen=True)
class SchedulesOptions:
    """Options of ``lightning evaluate schedules``."""

    split: str = "fidelity"
    """Split whose captions are drawn; must carry images, twice as many as are drawn."""
    grounding: str = "grounding"
    """Split of the phrases."""
    schedules: list[Schedule] = field(default_factory=lambda: list(SCHEDULES))
    """Which lists of timesteps: uniform, exponential_early, exponential_late."""
    gammas: list[float] = field(default_factory=lambda: [GAMMA])
    """How crowded the exponential ones are; each is measured with each."""
    steps: int = 30
    """Denoising steps of all of them."""
    guidance_scale: float | None = None
    """Null takes the model's own."""
    samples: int | None = 100
    """Images drawn for each; null takes half of the split. Only distances of one N compare."""
    phrases: int | None = None
    """Phrases that are grounded, balanced over classes; null takes all."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights, as of fidelity."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of the initial noise."""

    def __post_init__(self) -> None:
        ranges = {"samples": Range(2, whole=True), "phrases": COUNT, "batch_size": COUNT}
        check_ranges("schedules", self, steps=Range(1, 1000, whole=True), guidance_scale=NOT_NEGATIVE, **ranges)


class Way(NamedTuple):
    """One list of timesteps.

    Attributes:
        name: also of its folder of images.
        gamma: None where it has none.
    """

    name: str
    kind: str
    gamma: float | None
    timesteps: list[int]


def ways_of(options: SchedulesOptions) -> list[Way]:
    """The lists that are asked for; ``uniform`` once.

    Raises:
        UserError: a list in which a timestep repeats, or none.
    """
    found: dict[str, Way] = {}
    for kind in options.schedules:
        for gamma in [None] if kind == "uniform" else options.gammas:
            name = kind if gamma is None else f"{kind}_{gamma:g}"
            found[name] = Way(name, kind, gamma, schedule(kind, options.steps, GAMMA if gamma is None else gamma))
    if not found:
        raise UserError(f"schedules: name at least one of {', '.join(SCHEDULES)}, and a gamma for exponential ones.")
    return list(found.values())


class Schedules:
    """Frechet distance and grounding of every schedule, beside the model's own sampler.

    Args:
        options: what is measured.
        grounding: split of the phrases; None leaves grounding out.
        show_progress: draw progress bars.
    """

    def __init__(
        self, options: SchedulesOptions, grounding: LatentShardsDataset | None = None, show_progress: bool = False
    ) -> None:
        self.options, self.grounding, self.show_progress = options, grounding, show_progress
        self.ways = ways_of(options)

    def number(self, split: LatentShardsDataset) -> int:
        """Images of each schedule."""
        return len(split) // 2 if self.options.samples is None else self.options.samples

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse missing weights and a split that is too small."""
        problems, n = missing_extractors(self.options.weights), self.number(split)
        if n < 2 or len(split) < 2 * n:
            problems.append(
                f"The split {split.split!r} of {split.folder} holds {len(split)} images, and {n} samples need {2 * n} (a "
                f"reference and captions to draw) and at least 4: set samples to {len(split) // 2} or less."
            )
        refuse(problems)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes: images, then two maps a phrase and timestep."""
        images = self.number(split) * (len(self.ways) * self._sampling(model).forward_passes)
        own = self.number(split) * model.sampling.forward_passes
        return float(images + own + 2 * len(self.phrases) * sum(len(way.timesteps) for way in self.ways))

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Table ``schedules``; images stay in ``images/schedules/NAME``, so that a stopped run goes on with the rest."""
        self.check(split)
        folder = folder_needed(out, "schedules") / "images" / "schedules"
        with undisturbed(model), model.weights(self.options.ema):
            distances, items = self._distances(model, split, folder), self._items(model)
            rows: list[Row] = [
                {
                    **{"schedule": way.kind, "gamma": way.gamma, "steps": len(way.timesteps)},
                    **{"first": way.timesteps[0], "last": way.timesteps[-1], "n": self.number(split)},
                    **distances[way.name],
                    **self._grounded(model, way, items),
                }
                for way in self.ways
            ]
        for name, steps in ((SAMPLER, model.sampling.steps), (REAL, None)):
            rows.append({"schedule": name, "steps": steps, "n": self.number(split), **distances[name]})
        figures = {f"{name}/{figure}": value for name, found in distances.items() for figure, value in found.items()}
        return Result(figures, {"schedules": Table(rows, FIRST)})

    # ---- parts --------------------------------------------------------------------------------------------------

    def _sampling(self, model: LatentDiffusion) -> SamplingOptions:
        given, own = self.options.guidance_scale, model.sampling.guidance_scale
        return SamplingOptions("ddim", self.options.steps, own if given is None else given)

    @cached_property
    def phrases(self) -> list[GroundingSample]:
        """Those that are grounded; none without a split of them."""
        if self.grounding is None:
            return []
        return grounding_samples(self.grounding, list(QUERY_WORDS), self.options.phrases, self.options.seed)[0]

    def _distances(
        self, model: LatentDiffusion, split: LatentShardsDataset, folder: Path
    ) -> dict[str, dict[str, float]]:
        """Schedule, sampler or control -> figure -> distance to the first N real images."""
        options, n = self.options, self.number(split)
        extractors = {name: build_extractor(name, path, model.device) for name, path in options.weights.items()}
        prompts = {split.keys[i]: str(split.metadata(i)["impression"]) for i in range(n, 2 * n)}
        found: dict[str, Features] = {}
        for way in self.ways:
            drawn = FidelityOptions(sampling=self._sampling(model), batch_size=options.batch_size, seed=options.seed)
            draw_prompts(
                *(model, folder / way.name, prompts, drawn), show_progress=self.show_progress, along=way.timesteps
            )
            found[way.name] = self._features(extractors, folder / way.name, list(prompts), model)
        own = FidelityOptions(batch_size=options.batch_size, seed=options.seed)
        draw_prompts(model, folder / SAMPLER, prompts, own, show_progress=self.show_progress)
        found[SAMPLER] = self._features(extractors, folder / SAMPLER, list(prompts), model)
        real = partial(real_features, split, weights=options.weights, extractors=extractors, device=model.device)
        kept = cache_folder(split.folder, folder)
        reference = real(indices=range(n), batch_size=options.batch_size, folder=kept)
        found[REAL] = real(indices=range(n, 2 * n), batch_size=options.batch_size, folder=kept)
        distances: dict[str, dict[str, float]] = {name: {} for name in found}
        for extractor, features in reference.items():
            metric = FrechetFeatureDistance(keep_real=True, sync_on_compute=False)
            metric.update(features, real=True)
            for name, some in found.items():
                metric.reset()
                metric.update(some[extractor], real=False)
                value = metric.compute()
                distances[name][f"{EXTRACTORS[extractor].frechet}_{extractor}"] = value["frechet"]
                distances[name][f"kid_{extractor}"] = value["kid"]
        return distances

    def _features(
        self, extractors: dict[str, Extractor], folder: Path, keys: Sequence[str], model: LatentDiffusion
    ) -> Features:
        return measure(
            extractors,
            lambda some: signed(read_images(folder, [keys[i] for i in some])),
            range(len(keys)),
            model.device,
            self.options.batch_size,
            folder.name,
            self.show_progress,
        )

    def _items(self, model: LatentDiffusion) -> list[GroundingItem]:
        """The phrases with the latents of their images and the words that ask for their findings."""
        items, split, tokenizer = [], self.grounding, model.text_encoder.tokenizer
        for one in self.phrases if split is not None else ():
            assert split is not None
            words = query_tokens(tokenizer, one.phrase, QUERY_WORDS[one.label]).weights
            latents = evaluation_latents(split, one.index, self.options.seed)
            items.append(GroundingItem(one.key, latents, one.phrase, words[None]))
        return items

    def _grounded(self, model: LatentDiffusion, way: Way, items: Sequence[GroundingItem]) -> Row:
        """CNR of the finding's words at a schedule's timesteps, and what of it is left under an absent finding."""
        samples, split = self.phrases, self.grounding
        if split is None or not samples:
            return {}
        seed, steps = self.options.seed, way.timesteps
        absent, own, gains = absent_findings(split, samples), dict[int, float](), Gains()
        total = (len(items) + len(absent)) * len(steps)
        with progress_bar(total, "pass", f"maps, {way.name}", self.show_progress) as bar:
            maps = grounding_pass(model, items, steps, seed, self.options.batch_size, on_progress=bar.update)
            for i, heat in mean_over_timesteps(maps, len(steps)):
                full = resize_maps(heat, samples[i].size)[0]  # (H, W)
                own[id(samples[i])] = _cnr(full, samples[i])
            size = self.options.batch_size
            for i, full in absent_maps(model, split, absent, steps, QUERY_WORDS, seed, size, bar.update):
                sample = absent[i][0]
                gains.add("absent", sample, own[id(sample)], _cnr(full, sample))
        found = {str(row["control"]): row for row in gains.rows()}.get("absent", {})
        known = [value for value in own.values() if np.isfinite(value)]
        return {
            "cnr": float(np.mean(known)) if known else None,
            "gain_absent": found.get("gain"),
            "gain_low": found.get("low"),
            "gain_high": found.get("high"),
            "phrases": len(samples),
        }


def _cnr(heat: torch.Tensor, sample: GroundingSample) -> float:
    with one_core():
        value = localisation(heat, torch.from_numpy(sample.box_mask()))["cnr"]
    return float("nan") if value is None else float(value)
