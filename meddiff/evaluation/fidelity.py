"""How far are drawn images from real ones? Frechet and kernel distances under every protocol of the literature.

The first N images of the split are the reference; images are drawn for the captions of the next N, whose own real images
are the control *real against real*. The paper draws for the captions of the reference itself. A Frechet distance has a
bias that grows as N falls: only figures of one N compare, so N stands beside it.
Source: Heusel et al. 2017, Binkowski et al. 2018, Dombrowski et al. 2024 (Table 4); protocols spec/anchors.md 0.1 and
spec/tradeoff.md section 7; controls own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import refuse
from meddiff.common.ranges import COUNT, check_ranges
from meddiff.evaluation.feature_cache import Features
from meddiff.evaluation.image_sets import ImageSets, noise, through_vae
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.provenance import split_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.fidelity import FrechetFeatureDistance
from meddiff.models.backbones import untrained_twin
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.feature_extractors import EXTRACTORS, Extractor, build_extractor, missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("metric", "value", "n", "protocol", "control", "seed")
PAPER_N = 5000
CONTROLS = ("real_vs_real", "autoencoder", "noise", "untrained")
#: Name of the set that all others are compared with.
REFERENCE = "reference"


@dataclass(frozen=True)
class FidelityOptions:
    """Options of fidelity, during training and of ``lightning evaluate fidelity``."""

    split: str = "fidelity"
    """Split of the shards; must carry images."""
    samples: int | None = None
    """Images drawn, and size of the reference (the split must hold twice as many). Only figures of one N compare. Null
    takes half of the split, at most the paper's 5,000."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights: domain, inception, inception_paper, xrv224, xrv512, xrv_gap, raddino, raddino_299."""
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


def half_of(have: int, samples: int | None, most: int = PAPER_N) -> int:
    """Images to draw for one half of a split, with the other half to compare with: as asked, else as many as there are.

    Example:
        >>> half_of(30, None), half_of(30, 4), half_of(30_000, None)
        (15, 4, 5000)
    """
    return min(most, have // 2) if samples is None else samples


class Fidelity:
    """``fid_*`` or ``fd_*``, and ``kid_*``, of drawn images, feature extractor by extractor, with their controls at the same N.

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
        return half_of(len(split), self.options.samples)

    def size_problem(self, have: int, where: str) -> str | None:
        """A sentence where a split of ``have`` images is too small for a reference and captions to draw.

        Args:
            where: the split, as the sentence's subject.
        """
        n = half_of(have, self.options.samples)
        if n < 2:
            return f"samples is {n}; a distance between sets needs at least 2."
        if have < 2 * n:
            return (
                f"{where} holds {have} images, and {n} samples need {2 * n} (a reference and captions to draw): "
                f"set samples to {have // 2} or less."
            )
        return None

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse missing weights, unknown names, and a split that is too small."""
        options = self.options
        problems = missing_extractors(options.weights)
        unknown = sorted(set(options.controls) - set(CONTROLS))
        if unknown:
            problems.append(f"No control {unknown[0]!r}: there are {', '.join(CONTROLS)}.")
        if not options.weights:
            problems.append("fidelity needs at least one feature extractor: set weights.")
        problem = self.size_problem(len(split), f"The split {split.split!r} of {split.folder}")
        problems += [] if problem is None else [problem]
        refuse(problems)

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
        first, others = range(n), range(n, 2 * n)
        sets = ImageSets(options, self._extractors, model, split, out, ranks, self.show_progress and ranks.is_first)
        with undisturbed(model), model.weights(options.ema):
            if not self._extractors:
                weights = options.weights.items()
                self._extractors |= {name: build_extractor(name, path, model.device) for name, path in weights}
            ways = options.ways(model)
            sets.drawn("", "fidelity", others, ways[0])
            kept = dict(sets.images)
            known = self._reference_of == (which := (split_digest(split), n))
            if not known:
                sets.real(REFERENCE, first)
            for way in ways[1:]:
                sets.drawn(way.sampler, way.sampler, others, way)
            for control in options.controls if controls else ():
                if control == "real_vs_real":
                    sets.real(control, others)
                elif control == "untrained":
                    sets.drawn(control, control, others, ways[0], untrained_twin(model.unet, options.seed))
                else:
                    source = through_vae if control == "autoencoder" else noise
                    sets.other(control, source(model, split, options.seed), others)
        found = sets.gathered()
        if (reference := found.pop(REFERENCE, None)) is not None:
            self._reference, self._reference_of = reference, which
        return self._result(found, n, kept)

    def _result(self, found: Mapping[str, Features | None], n: int, images: dict[int, NDArray[np.uint8]]) -> Result:
        """``found``: "" for the drawn images, a sampler or a control -> features."""
        rows: list[Row] = []
        figures: dict[str, float] = {}
        controls: dict[str, dict[str, float | None]] = {}
        for name, reference in self._reference.items():
            protocol, frechet = f"{name}/{EXTRACTORS[name].version}", f"{EXTRACTORS[name].frechet}_{name}"
            # the features of all ranks are here already; the reference meets every set
            metric = FrechetFeatureDistance(keep_real=True, sync_on_compute=False)
            metric.update(reference, real=True)
            for control, sets in found.items():
                distances = {"frechet": math.nan, "kid": math.nan}
                if sets is not None:
                    metric.reset()
                    metric.update(sets[name], real=False)
                    distances = metric.compute()
                for kind, value in ((frechet, distances["frechet"]), (f"kid_{name}", distances["kid"])):
                    figures[f"{control}/{kind}" if control else kind] = value
                    rows.append(dict(zip(FIRST, (kind, value, n, protocol, control, self.options.seed), strict=True)))
                    if control in CONTROLS:
                        controls.setdefault(kind, {})[control] = value if math.isfinite(value) else None
        figures["n"] = float(n)
        return Result(figures, {"fidelity": Table(rows, FIRST)}, {"n": n, **controls} if controls else {}, images)
