"""Does the generator give back its patients? Each drawn image beside its nearest training image, in pixels and in features.

A distance counts as a copy's where it falls short of what 1 % of held-out images have; the ratio of Carlini et al.
divides it by the distances to the next neighbours. Prompts are captions of training images (the worst case) and,
apart from them, of held-out images. Controls on the same lines: ``held_out`` images, ``exact`` training images, and
training images ``shifted`` as by 4 px of 256 with noise on top. Held-out patients must have no training images; those
that do are counted.
Nearest pairs are kept as pictures in the folder of the evaluation, on this machine and nowhere else.
Source: Carlini et al. (USENIX Security 2023), Alaa et al. (ICML 2022), Meehan et al. (AISTATS 2020); calibration own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import refuse
from meddiff.common.ranges import COUNT, SHARE, check_ranges
from meddiff.evaluation.compared_sets import decoded, shared_patients, training_order, training_problems
from meddiff.evaluation.copy_pairs import leave_pairs
from meddiff.evaluation.feature_cache import PIXELS, Features, Images, looks
from meddiff.evaluation.fidelity import half_of
from meddiff.evaluation.image_sets import ImageSets
from meddiff.evaluation.measurement import Result, Row, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional.copies import (
    BORDER,
    NEIGHBOURS,
    SIDE,
    PixelNeighbours,
    copy_threshold,
    held_out_share,
    nearest_pixels,
)
from meddiff.metrics.functional.neighbours import nearest
from meddiff.metrics.functional.novelty import authentic, copying_test
from meddiff.metrics.intervals import mean_interval
from meddiff.models.domain_classifier import DEFAULT_CLASSIFIER
from meddiff.models.feature_extractors import missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset

MIRRORED = "mirrored"
#: Drawn for training captions (the worst case), drawn for held-out captions, and the controls.
SETS = ("", "held_out_captions", "held_out", "exact", "shifted")
FIRST = (
    "set",
    "space",
    "copy_share",
    "low",
    "high",
    "ratio_p1",
    "ratio_p5",
    "ratio_p50",
    "candidates",
    "authentic",
    "ct",
    "n",
)
EACH = ("set", "space", "key", "distance", "threshold", "ratio", "copy", "nearest")


@dataclass(frozen=True)
class CopiesOptions:
    """Options of ``lightning evaluate copies``."""

    split: str = "fidelity"
    """Split of the shards with held-out images, whose distances to the training images say what is near."""
    samples: int | None = None
    """Images drawn for training captions, and as many for held-out ones; null takes half of the split, at most 2,000."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights, beside pixels: domain, inception, xrv224, xrv512, xrv_gap, raddino, ..."""
    share: float = 0.01
    """Of held-out images that lie nearer than the threshold; a thousand of them are needed for it to be fine."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    statistics: str | None = None
    """Folder for features of real images; null takes SHARDS/.statistics, or the evaluation where that is read-only."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of captions, initial noise and the copying test."""

    def __post_init__(self) -> None:
        check_ranges("copies", self, samples=COUNT, batch_size=COUNT, share=SHARE)


class Copies:
    """Copies of training images among drawn ones.

    Args:
        options: what is measured.
        train: split that the model was trained on; None where there is none.
        show_progress: draw progress bars.
    """

    def __init__(
        self,
        options: CopiesOptions = CopiesOptions(),
        train: LatentShardsDataset | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.train, self.show_progress = options, train, show_progress

    def number(self, split: LatentShardsDataset) -> int:
        """Images drawn for training captions."""
        return half_of(len(split), self.options.samples, most=2000)

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse missing weights, no training images, too few of a kind, and images smaller than the grid."""
        n, problems = self.number(split), missing_extractors(self.options.weights)
        problems += training_problems(self.train, split)
        if n < 2 or n > len(split) // 2 or (self.train is not None and n > len(self.train)):
            problems.append(
                f"copies: {n} samples are asked for; there must be 2 or more, as many training images and twice as many images "
                f"in the split {split.split!r} (it holds {len(split)}): set samples."
            )
        if split.manifest.resolution < SIDE:
            problems.append(
                f"Images of {split.manifest.resolution} px are smaller than the grid of {SIDE} px: prepare larger ones."
            )
        refuse(problems)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run; less where other parts have drawn the same images."""
        way = self.options.sampling or model.sampling
        return float(2 * self.number(split) * way.forward_passes)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``copies``, a row for each set and space, and ``copied_images``, one for each image and space.

        Args:
            out: images go to ``images/copies`` and ``images/copies_training`` there, pairs to ``copies``.

        Raises:
            UserError: as :meth:`check`, images of other settings in the way, or features that are not finite.
        """
        self.check(split)
        assert self.train is not None
        train, n, seed = self.train, self.number(split), self.options.seed
        options = replace(self.options, weights={**self.options.weights, PIXELS: ""})
        asked, half = training_order(train, seed)[:n], len(split) // 2
        others, everyone = (
            range(half, half + n),
            range(len(split)),
        )  # others: the captions of fidelity, where n is its own
        show = self.show_progress and ranks.is_first
        with undisturbed(model), model.weights(options.ema):
            extractors, way = looks(options.weights, model.device), options.sampling or model.sampling
            held = ImageSets(options, extractors, model, split, out, ranks, show)
            held.drawn("held_out_captions", "copies", others, way, borrow=["fidelity", "coverage"])
            held.real("held_out", everyone, decoded(model, split))
            trained = ImageSets(options, extractors, model, train, out, ranks, show)
            trained.drawn("", "copies_training", asked, way)
            trained.real("train", range(len(train)), decoded(model, train))
            trained.other("shifted", disturbed(decoded(model, train).images, train, seed), asked)
        found = {**held.gathered(), **trained.gathered()}
        everything = found["train"]
        found["exact"] = None if everything is None else {name: one[asked] for name, one in everything.items()}
        train_keys, split_keys = train.keys, split.keys
        keys = {
            "": [train_keys[i] for i in asked],
            "held_out_captions": [split_keys[i] for i in others],
            "held_out": list(split_keys),
            **{name: [train_keys[i] for i in asked] for name in ("exact", "shifted")},
        }
        result = copies_result(found, list(self.options.weights), keys, train_keys, self.options.share, seed)
        result.figures |= {"n": float(n), "held_out_n": float(len(split)), "train": float(len(train))}
        result.figures["shared_patients"] = float(shared_patients(train, split))
        if out is not None and ranks.is_first:
            leave_pairs(out, result.tables["copied_images"].rows, model, train)
        return result


def disturbed(images: Images, split: LatentShardsDataset, seed: int) -> Images:
    """``images`` moved by a sixty-fourth of their side, as 4 px of 256, with noise of 2 of 255 on top: copies that a comparison
    pixel by pixel does not see."""

    def changed(indices: Sequence[int]) -> Tensor:
        found = images(indices)  # (B, 3, H, W)
        by = max(1, found.shape[-1] // SIDE)
        moved = F.pad(found, (by, 0, by, 0), mode="replicate")[..., : found.shape[-2], : found.shape[-1]]
        draws = [
            generator(seed, "noise on copies", split.keys[i]).normal(0, 2 / 127.5, found.shape[-2:]) for i in indices
        ]
        return (moved + torch.from_numpy(np.stack(draws))[:, None].to(moved)).clamp(-1, 1)

    return changed


def copies_result(
    found: Mapping[str, Features | None],
    extractors: Sequence[str],
    keys: Mapping[str, Sequence[str]],
    train_keys: Sequence[str],
    share: float,
    seed: int,
) -> Result:
    """Figures and tables of features.

    Args:
        found: the sets of :data:`SETS` and ``train`` -> features, pixels among them; None: an image was not finite.
        keys: of the images of each set.
    """
    rows: list[Row] = []
    each: list[Row] = []
    figures: dict[str, float] = {}
    controls: dict[str, dict[str, float | None]] = {}
    for space in (PIXELS, MIRRORED, *extractors):
        name = PIXELS if space == MIRRORED else space
        sets = {key: None if features is None else features[name] for key, features in found.items()}
        train, real = sets["train"], sets["held_out"]
        assert train is not None
        assert real is not None
        near = neighbours(real, train, space)
        threshold = copy_threshold(near.distances[:, 0], share)
        for key in SETS:
            features = sets[key]
            row: dict[str, float] = dict.fromkeys(FIRST[2:], math.nan)
            if features is not None:
                near_here = near if key == "held_out" else neighbours(features, train, space)
                apart, ratio = near_here.distances[:, 0], near_here.ratio
                copied = held_out_share(apart, share) if key == "held_out" else apart < threshold
                row["copy_share"] = float(copied.double().mean())
                row["low"], row["high"] = mean_interval(copied.double().numpy()[None], list(keys[key]), share=True)
                quantiles = ratio.nanquantile(torch.tensor([0.01, 0.05, 0.5]).to(ratio)).tolist()
                row |= dict(zip(("ratio_p1", "ratio_p5", "ratio_p50"), quantiles, strict=True))
                row |= {"candidates": float((ratio <= 1).sum()), "n": float(len(features))}
                if space in extractors:
                    row["authentic"] = float(authentic(train, features).double().mean())
                    row["ct"] = copying_test(train, real, features, seed=seed) if key != "held_out" else 0.0
                parts = zip(
                    keys[key],
                    apart.tolist(),
                    ratio.tolist(),
                    copied.tolist(),
                    near_here.places[:, 0].tolist(),
                    strict=True,
                )
                each += [
                    dict(zip(EACH, (key, space, one, d, threshold, r, float(c), train_keys[place]), strict=True))
                    for one, d, r, c, place in parts
                ]
            rows.append({"set": key, "space": space, **row})
            of_set = {f"copy_share_{space}": row["copy_share"], f"copy_ratio_{space}_p1": row["ratio_p1"]}
            if space in extractors:
                of_set |= {f"authentic_share_{space}": row["authentic"], f"ct_{space}": row["ct"]}
            figures |= {f"{key}/{kind}" if key else kind: value for kind, value in of_set.items()}
            if key:
                controls[key] = {
                    **controls.get(key, {}),
                    **{k: v if math.isfinite(v) else None for k, v in of_set.items()},
                }
    tables = {"copies": Table(rows, FIRST), "copied_images": Table(each, EACH)}
    return Result(figures, tables, dict(controls))


def neighbours(features: Tensor, train: Tensor, space: str) -> PixelNeighbours:
    """The nearest training images: in pixels under small shifts, in features by the angle around the mean training image."""
    k = min(NEIGHBOURS, len(train))
    if space in (PIXELS, MIRRORED):
        return nearest_pixels(features, train, k, BORDER, BORDER, mirrored=space == MIRRORED)
    centre = train.double().mean(dim=0)
    queries, points = (F.normalize(one.double() - centre, dim=1) for one in (features, train))
    return PixelNeighbours(*nearest(queries, points, k))
