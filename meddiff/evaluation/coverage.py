"""Do drawn images cover the population, and how many training images does the generator reach?

Precision, recall, density and coverage (k = 5, equal N, the reference held out), the image retrieval score and its ratio to
held-out images, the Vendi score as a ratio, and the kernel distance, also class by class with N and interval. Every figure
stands beside the same of three controls: ``held_out`` (the real images of the prompts, the best there is), ``training_copies``
(training images in the place of drawn ones: what looks perfect here and is not) and ``one_image`` (one real image, repeated).
Source: as named in `meddiff.metrics.functional`; controls own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from meddiff.common.errors import refuse
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.common.ranges import COUNT, check_ranges
from meddiff.evaluation.compared_sets import decoded, training_problems
from meddiff.evaluation.feature_cache import Features, looks
from meddiff.evaluation.fidelity import half_of
from meddiff.evaluation.image_sets import ImageSets
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import kernel_distance
from meddiff.metrics.functional.class_kernel import class_kernel_distance
from meddiff.metrics.functional.image_retrieval import Reached, reached, retrieved
from meddiff.metrics.functional.prdc import coverage_ceiling, prdc
from meddiff.metrics.functional.vendi import vendi_score
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.feature_extractors import missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

#: The neighbour that gives a radius; published figures have this one.
K = 5
NEIGHBOURS = ("precision", "recall", "density", "coverage")
SETS = ("", "held_out", "training_copies", "one_image")
FIRST = (
    "extractor",
    "control",
    *NEIGHBOURS,
    "irs",
    "irs_low",
    "irs_high",
    "irs_ratio",
    "vendi",
    "vendi_ratio",
    "kid",
    "n",
)
CLASSES = ("extractor", "control", "class", "kid", "low", "high", "n_real", "n_drawn")


@dataclass(frozen=True)
class CoverageOptions:
    """Options of ``lightning evaluate coverage``."""

    split: str = "fidelity"
    """Split of the shards with held-out images; must carry images."""
    samples: int | None = None
    """Images drawn, and size of the reference (the split must hold twice as many). Only figures of one N compare. Null
    takes half of the split, at most 5,000."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights: domain, inception, inception_paper, xrv224, xrv512, xrv_gap, raddino, raddino_299."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    statistics: str | None = None
    """Folder for features of real images; null takes SHARDS/.statistics, or the evaluation where that is read-only."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of the initial noise and of intervals."""

    def __post_init__(self) -> None:
        check_ranges("coverage", self, samples=COUNT, batch_size=COUNT)


class Coverage:
    """Precision, recall, density, coverage, image retrieval score, Vendi ratio and kernel distances of drawn images.

    Args:
        options: what is measured.
        train: split that the model was trained on; None where there is none.
        show_progress: draw progress bars.
    """

    def __init__(
        self,
        options: CoverageOptions = CoverageOptions(),
        train: LatentShardsDataset | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.train, self.show_progress = options, train, show_progress

    def number(self, split: LatentShardsDataset) -> int:
        """N, the number of images to draw."""
        return half_of(len(split), self.options.samples)

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse missing weights, no training images, and a split that is too small."""
        n, problems = self.number(split), missing_extractors(self.options.weights)
        problems += training_problems(self.train, split)
        if not self.options.weights:
            problems.append("coverage needs at least one feature extractor: set weights.")
        if n <= K or len(split) < 2 * n:
            problems.append(
                f"The split {split.split!r} of {split.folder} holds {len(split)} images, and {n} samples are asked for: it "
                f"needs twice as many images as samples, and those must be more than {K}."
            )
        refuse(problems)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run; less where fidelity has drawn the same images."""
        way = self.options.sampling or model.sampling
        return float(self.number(split) * way.forward_passes)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``coverage``, a row for each extractor and control, and ``coverage_classes``.

        Args:
            out: images go to ``images/coverage`` there, and are taken from ``images/fidelity`` where those fit.

        Raises:
            UserError: as :meth:`check`, images of other settings in the way, or features that are not finite.
        """
        self.check(split)
        assert self.train is not None
        options, n, train = self.options, self.number(split), self.train
        first, others = range(n), range(n, 2 * n)
        show = self.show_progress and ranks.is_first
        with undisturbed(model), model.weights(options.ema):
            extractors = looks(options.weights, model.device)
            sets = ImageSets(options, extractors, model, split, out, ranks, show)
            sets.drawn("", "coverage", others, options.sampling or model.sampling, borrow=["fidelity"])
            sets.real("reference", first)
            sets.real("held_out", others)
            sets.real("held_out_decoded", others, decoded(model, split))
            trained = ImageSets(options, extractors, model, train, out, ranks, show)
            trained.real("train", range(len(train)), decoded(model, train))
        found = {**sets.gathered(), **trained.gathered()}
        labels = [list(split.metadata(i)["labels"]) for i in range(2 * n)]
        return coverage_result(found, list(options.weights), labels, n, options.seed)


def coverage_result(
    found: Mapping[str, Features | None],
    extractors: Sequence[str],
    labels: Sequence[Sequence[str]],
    n: int,
    seed: int,
) -> Result:
    """Figures and tables of features.

    Args:
        found: ``""`` (drawn), ``reference``, ``held_out``, ``held_out_decoded`` (N each) and ``train`` -> features; drawn ones
            may be None: an image was not finite.
        labels: of the reference, then of the images whose captions were drawn: what a drawn image is asked to show.
    """
    rows: list[Row] = []
    of_classes: list[Row] = []
    figures: dict[str, float] = {}
    controls: dict[str, object] = {}
    for name in extractors:
        sets = {key: None if features is None else features[name] for key, features in found.items()}
        some = compare(sets, n)
        for control, row in some.items():
            rows.append({"extractor": name, "control": control, **row, "n": float(n)})
            prefix = f"{control}/" if control else ""
            figures |= {f"{prefix}{figure(kind, name)}": row[kind] for kind in FIGURES}
        controls[name] = {
            c: {k: v if math.isfinite(v) else None for k, v in row.items()} for c, row in some.items() if c
        }
        figures[f"coverage_ceiling_k5_{name}"] = coverage_ceiling(n, n, K)
        reference = sets["reference"]
        for control in ("", "held_out"):
            drawn = sets[control]
            if drawn is None or reference is None:
                continue
            classes = class_kernel_distance(
                reference, labels[:n], drawn, labels[n : 2 * n], [*FINDINGS, NO_FINDING], seed=seed
            )
            for label, one in classes.items():
                cells = (name, control, label, one.distance, one.low, one.high, one.real, one.fake)
                of_classes.append(dict(zip(CLASSES, cells, strict=True)))
                if not control:
                    figures |= {f"{label}/kid_{name}": one.distance, f"{label}/n": float(min(one.real, one.fake))}
    figures |= {"n": float(n), "train": float(len(next(iter((found["train"] or {}).values()), ())))}
    tables = {"coverage": Table(rows, FIRST), "coverage_classes": Table(of_classes, CLASSES)}
    return Result(figures, tables, controls)


#: Columns of the table that are logged, too.
FIGURES = (*NEIGHBOURS, "irs", "irs_ratio", "vendi_ratio", "kid")


def figure(kind: str, extractor: str) -> str:
    """The logged name of a column.

    Example:
        >>> figure("recall", "domain"), figure("irs_ratio", "domain"), figure("kid", "domain")
        ('recall_k5_domain', 'irs_adjusted_domain', 'kid_domain')
    """
    names = {**{one: f"{one}_k{K}" for one in NEIGHBOURS}, "irs": "irs_inf", "irs_ratio": "irs_adjusted"}
    return f"{names.get(kind, kind)}_{extractor}"


def compare(sets: Mapping[str, Tensor | None], n: int) -> dict[str, dict[str, float]]:
    """control -> column -> value; NaN for a set that is None.

    Args:
        sets: as :func:`coverage_result`, of one extractor.
    """
    reference, train = (sets[key] for key in ("reference", "train"))
    assert reference is not None
    assert train is not None
    centre = reference.double().mean(dim=0)  # (D,)
    shown = {"": sets[""], "held_out": sets["held_out"]}
    shown["training_copies"] = train[:n] if len(train) >= n else None
    shown["one_image"] = reference[:1].expand(n, -1)
    # the retrieval score compares with decoded training images, and so what is decoded
    looked = {**shown, "held_out": sets["held_out_decoded"]}
    best: Reached | None = None
    diverse = math.nan
    found: dict[str, dict[str, float]] = {}
    for control in ("held_out", "", "training_copies", "one_image"):
        features, other = shown[control], looked[control]
        row = dict.fromkeys(
            (*NEIGHBOURS, "irs", "irs_low", "irs_high", "irs_ratio", "vendi", "vendi_ratio", "kid"), math.nan
        )
        if features is not None and other is not None:
            row |= dict(zip(NEIGHBOURS, prdc(reference, features, K), strict=True))
            size = reached(len(train), n, retrieved(train, other))
            best = size if control == "held_out" else best
            row |= {key: value / len(train) for key, value in zip(("irs", "irs_low", "irs_high"), size, strict=True)}
            row["irs_ratio"] = size.images / best.images if best is not None else math.nan
            row["vendi"] = 1.0 if control == "one_image" else vendi_score(features, centre)
            diverse = row["vendi"] if control == "held_out" else diverse
            row["vendi_ratio"] = row["vendi"] / diverse
            row["kid"] = kernel_distance(reference, features)
        found[control] = row
    return {control: found[control] for control in SETS}
