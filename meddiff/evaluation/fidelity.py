"""How far are drawn images from real ones? Frechet and kernel distances under every protocol of the literature.

The first N images of the split are the reference; images are drawn for the captions of the next N, whose own real images
are the control *real against real*. The paper draws for the captions of the reference itself. A Frechet distance has a
bias that grows as N falls: only figures of one N compare, so N stands beside it.
Source: Heusel et al. 2017, Binkowski et al. 2018, Dombrowski et al. 2024 (Table 4); protocols spec/anchors.md 0.1 and
spec/tradeoff.md section 7; controls own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, check_ranges
from meddiff.evaluation.drawing import draw_prompts, read_images, signed
from meddiff.evaluation.feature_cache import Images, cache_folder, measure, real_features
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.not_finite import tell
from meddiff.evaluation.provenance import split_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.fidelity import FrechetFeatureDistance
from meddiff.models.autoencoder import NotFiniteImages, decode, whole_images
from meddiff.models.backbones import untrained_twin
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.feature_extractors import EXTRACTORS, Extractor, build_extractor, missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

FIRST = ("metric", "value", "n", "protocol", "control", "seed")
PAPER_N = 5000
CONTROLS = ("real_vs_real", "autoencoder", "noise", "untrained")
#: extractor -> (N, D) on the CPU.
Features = dict[str, Tensor]


@dataclass(frozen=True)
class FidelityOptions:
    """Options of fidelity, during training and of ``lightning evaluate fidelity``."""

    split: str = "fidelity"
    """Split of the shards; must carry images."""
    samples: int | None = None
    """Images drawn, and size of the reference (the split must hold twice as many). Only figures of one N compare. Null
    takes half of the split, at most the paper's 5,000."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights: domain, inception, inception_paper, xrv224, xrv512, xrv_gap."""
    controls: list[str] = field(default_factory=lambda: list(CONTROLS))
    """What is measured beside the drawn images, during training once: real_vs_real, autoencoder, noise, untrained (draws as
    many again)."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    compare_with: list[SamplingOptions] = field(default_factory=list)
    """More ways to draw, each measured as ``SAMPLER/fid_...``."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    statistics: str | None = None
    """Folder for features of the real images; null takes SHARDS/.statistics, or the evaluation where that is read-only.
    During training they are kept in memory."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of the initial noise."""

    def __post_init__(self) -> None:
        check_ranges("fidelity", self, batch_size=COUNT)

    def ways(self, model: LatentDiffusion) -> list[SamplingOptions]:
        """How images are drawn; the first is the one that counts."""
        return [self.sampling or model.sampling, *self.compare_with]


class Fidelity:
    """``fid_*`` and ``kid_*`` of drawn images, feature extractor by extractor, with their controls at the same N.

    Extractors and the features of the reference are kept for the next run.

    Args:
        options: what is measured.
        show_progress: draw progress bars.
    """

    def __init__(self, options: FidelityOptions = FidelityOptions(), show_progress: bool = False) -> None:
        self.options, self.show_progress = options, show_progress
        self._extractors: dict[str, Extractor] = {}
        self._reference: Features = {}
        self._reference_of: tuple[str, int] | None = None  # which samples, and how many

    def number(self, split: LatentShardsDataset) -> int:
        """N, the number of images to draw."""
        return min(PAPER_N, len(split) // 2) if self.options.samples is None else self.options.samples

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse missing weights, unknown names, and a split that is too small."""
        options, n = self.options, self.number(split)
        problems = missing_extractors(options.weights)
        unknown = sorted(set(options.controls) - set(CONTROLS))
        if unknown:
            problems.append(f"No control {unknown[0]!r}: there are {', '.join(CONTROLS)}.")
        if not options.weights:
            problems.append("fidelity needs at least one feature extractor: set weights.")
        if n < 2:
            problems.append(f"samples is {n}; a distance between sets needs at least 2.")
        elif len(split) < 2 * n:
            problems.append(
                f"The split {split.split!r} of {split.folder} holds {len(split)} images, and {n} samples "
                f"need {2 * n} (a reference and captions to draw): set samples to {len(split) // 2} or less."
            )
        if problems:
            raise UserError(" ".join(problems))

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run, without those of the control *untrained*."""
        return float(self.number(split) * sum(way.forward_passes for way in self.options.ways(model)))

    def run(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        out: Path | None,
        ranks: Ranks,
        controls: bool = True,
    ) -> Result:
        """Table ``fidelity``: a row for each distance and control.

        Args:
            out: images go to ``images/fidelity``, ``images/SAMPLER`` and ``images/untrained`` there; None keeps them in
                memory, and those of this rank come back in the result.
            controls: measure the controls too; during training they are measured once.
        """
        self.check(split)
        options, n = self.options, self.number(split)
        others = range(n, 2 * n)
        pass_ = _Pass(self, model, split, out, ranks)
        found: dict[str, Features | None] = {}  # None: not all images were finite
        with undisturbed(model), model.weights(options.ema):
            if not self._extractors:
                weights = options.weights.items()
                self._extractors = {name: build_extractor(name, path, model.device) for name, path in weights}
            ways = options.ways(model)
            found[""] = pass_.drawn("fidelity", others, ways[0])
            kept = dict(pass_.images)
            if self._reference_of != (which := (split_digest(split), n)):
                self._reference, self._reference_of = pass_.real(range(n)), which
            for way in ways[1:]:
                found[way.sampler] = pass_.drawn(way.sampler, others, way)
            for control in options.controls if controls else ():
                if control == "real_vs_real":
                    found[control] = pass_.real(others)
                elif control == "untrained":
                    twin = untrained_twin(model.unet, options.seed)
                    found[control] = pass_.drawn(control, others, ways[0], twin)
                else:
                    source = through_vae if control == "autoencoder" else noise
                    found[control] = pass_.features(source(model, split, options.seed), others, control)
        return self._result(found, n, kept)

    def _result(self, found: Mapping[str, Features | None], n: int, images: dict[int, NDArray[np.uint8]]) -> Result:
        """``found``: "" for the drawn images, a sampler or a control -> features."""
        rows: list[Row] = []
        figures: dict[str, float] = {}
        controls: dict[str, dict[str, float | None]] = {}
        for name, reference in self._reference.items():
            protocol = f"{name}/{EXTRACTORS[name].version}"
            # the features of all ranks are here already; the reference meets every set
            metric = FrechetFeatureDistance(keep_real=True, sync_on_compute=False)
            metric.update(reference, real=True)
            for control, sets in found.items():
                distances = {"frechet": math.nan, "kid": math.nan}
                if sets is not None:
                    metric.reset()
                    metric.update(sets[name], real=False)
                    distances = metric.compute()
                for kind, value in ((f"fid_{name}", distances["frechet"]), (f"kid_{name}", distances["kid"])):
                    figures[f"{control}/{kind}" if control else kind] = value
                    rows.append(dict(zip(FIRST, (kind, value, n, protocol, control, self.options.seed), strict=True)))
                    if control in CONTROLS:
                        controls.setdefault(kind, {})[control] = value if math.isfinite(value) else None
        figures["n"] = float(n)
        return Result(figures, {"fidelity": Table(rows, FIRST)}, {"n": n, **controls} if controls else {}, images)


class _Pass:
    """What one run of :class:`Fidelity` draws and measures with."""

    def __init__(
        self, owner: Fidelity, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks
    ) -> None:
        self.owner, self.model, self.split, self.out, self.ranks = owner, model, split, out, ranks
        self.images: dict[int, NDArray[np.uint8]] = {}

    def features(self, images: Images, indices: Sequence[int], title: str) -> Features:
        """Features of images, shared among ranks."""
        owner, options = self.owner, self.owner.options
        device, size = self.model.device, options.batch_size
        return measure(
            owner._extractors, images, indices, device, size, title, self.ranks, show_progress=owner.show_progress
        )

    def real(self, indices: Sequence[int]) -> Features:
        """Features of the cohort's own images."""
        owner, options = self.owner, self.owner.options
        folder = Path(options.statistics) if options.statistics else None
        if folder is None and self.out is not None:
            folder = cache_folder(self.split.folder, self.out)
        return real_features(
            self.split,
            indices,
            options.weights,
            owner._extractors,
            self.model.device,
            options.batch_size,
            folder,
            self.ranks,
            owner.show_progress,
        )

    def drawn(
        self, part: str, indices: Sequence[int], way: SamplingOptions, unet: "UNet2DConditionModel | None" = None
    ) -> Features | None:
        """Features of images drawn for the captions of ``indices``; None when one of them is not finite."""
        title = f"{part} images"
        prompts = {i: str(self.split.metadata(i)["impression"]) for i in indices}
        keys = self.split.keys
        if self.out is not None:
            place, options = self.out / "images" / part, replace(self.owner.options, sampling=way)
            texts = {keys[i]: text for i, text in prompts.items()}
            try:
                draw_prompts(self.model, place, texts, options, unet=unet, show_progress=self.owner.show_progress)
            except NotFiniteImages as error:
                tell(error, part)
                return None
            stored: Images = lambda some: signed(read_images(place, [keys[i] for i in some]))  # noqa: E731
            return self.features(stored, indices, title)
        mine, size = self.ranks.share(indices), self.owner.options.batch_size
        self.images, broken = {}, []
        draw = partial(self.model.sample, seed=self.owner.options.seed, options=way, unet=unet)
        for start in range(0, len(mine), size):
            some = mine[start : start + size]
            images, lost = whole_images(draw, [prompts[i] for i in some], [keys[i] for i in some])
            self.images |= {i: images[keys[i]] for i in some if keys[i] in images}
            broken += lost
        if broken := self.ranks.gather(broken):
            tell(NotFiniteImages(np.empty(0, np.uint8), broken, len(indices)), part)
            return None
        return self.features(lambda some: pixels(np.stack([self.images[i] for i in some])), indices, title)


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [-1, 1]."""
    return signed(torch.from_numpy(images).permute(0, 3, 1, 2))


def through_vae(model: LatentDiffusion, split: LatentShardsDataset, seed: int) -> Images:
    """The real images through the autoencoder: the best that a latent model can do."""

    def images(indices: Sequence[int]) -> Tensor:
        latents = torch.stack([evaluation_latents(split, i, seed) for i in indices]).to(model.device)
        try:
            return pixels(decode(model.vae, latents, model.scaling_factor))
        except NotFiniteImages as error:  # NaN goes through to the distance
            tell(error, "autoencoder")
            return torch.full_like(pixels(error.images), torch.nan)

    return images


def noise(model: LatentDiffusion, split: LatentShardsDataset, seed: int) -> Images:
    """Uniform noise of the images' size: the worst."""
    side = split.manifest.resolution

    def images(indices: Sequence[int]) -> Tensor:
        draws = [generator(seed, "noise image", split.keys[i]).uniform(-1, 1, (3, side, side)) for i in indices]
        return torch.from_numpy(np.stack(draws)).float()

    return images
