"""Table 2: grounding of MS-COCO captions, on instance masks.

Every class that a caption names is one sample; the maps of all classes of a caption come out of the same forward
passes. Ground truth is the union of the class's instance masks, ``KEY.mask.<class>.png`` of the shards.
Averages: over the captions of an image, then over the images of a class, then over classes (macro).

The published code makes one list of token maps per caption and never empties it, so that the map of a caption's second
class is averaged with that of its first, and so on; no preset does that here.
Source: Dombrowski et al. 2024, Table 2; spec/tradeoff.md section 1.7; one pass per caption own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypedDict

from meddiff.attribution.coco_words import class_tokens
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.attribution.words import Preset, Query
from meddiff.common.coco_classes import classes_in
from meddiff.common.errors import UserError
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, Range, check_ranges
from meddiff.evaluation.grounding_scores import unscored
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Row, Table, Value
from meddiff.evaluation.provenance import sample_digest
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import Exclusion, evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import mean_iou, mixture_threshold, resize_maps
from meddiff.metrics.grounding import locate_maps
from meddiff.metrics.summary import SCORES, summarise
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("key", "class", "phrase", "model", "images", "seed", "words", "cut", *SCORES)


@dataclass(frozen=True)
class CocoOptions:
    """Options of the MS-COCO part of ``lightning evaluate``."""

    split: str = "grounding"
    """Split of the shards; its samples carry captions and class masks."""
    captioned: int | None = None
    """Look at so many images only, the first in the order of their keys; null takes all."""
    preset: Preset = "standard"
    """Words of a class: "standard" (whole words, plurals) or "paper" (substrings)."""
    timesteps: int = 40
    """How many of the paper's 40 timesteps."""
    batch_size: int = 64
    """(caption, timestep) pairs per forward pass; changes no result."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of noise and posterior draws."""

    def __post_init__(self) -> None:
        check_ranges("coco", self, captioned=COUNT, timesteps=Range(1, 40, whole=True), batch_size=COUNT)


class CaptionEntry(TypedDict):
    """One line of the ledger: (image, caption), from which stored sample, and a row a class."""

    caption: list[int]
    made: str
    rows: list[dict[str, Value]]


@dataclass(frozen=True)
class CocoSample:
    """One class that a caption names and its image shows.

    Attributes:
        index: of the image in its split.
        number: of the caption among its image's.
    """

    index: int
    key: str
    number: int
    caption: str
    label: str


def coco_samples(
    dataset: LatentShardsDataset, preset: Preset = "standard", images: int | None = None
) -> tuple[list[CocoSample], list[Exclusion]]:
    """One sample per (image, caption, class), in that order; whatever cannot be scored, with its reason.

    Args:
        preset: of :func:`meddiff.common.coco_classes.classes_in`.
        images: look at so many images only.

    Raises:
        UserError: nothing can be scored.
    """
    found: list[CocoSample] = []
    excluded: list[Exclusion] = []
    for index, key in enumerate(dataset.keys[:images]):
        metadata = dataset.metadata(index)
        shown = {name for name, mask in dataset.masks(index).items() if mask.any()}
        for number, caption in enumerate(metadata["captions"] or [metadata["impression"]]):
            labels = classes_in(caption, preset)
            if not labels:
                excluded.append(Exclusion(key, "", caption, "the caption names no class"))
            for label in labels:
                if label not in shown:
                    excluded.append(Exclusion(key, label, caption, "no instance of the class in the image"))
                    continue
                found.append(CocoSample(index, key, number, caption, label))
    if not found:
        known = ", ".join(sorted({one.reason for one in excluded})) or "it holds no images"
        raise UserError(
            f"The split {dataset.split!r} of {dataset.folder} has no MS-COCO caption to ground ({known}): prepare one "
            f"with captions and a mask for every class."
        )
    return found, excluded


class Coco:
    """Grounding of MS-COCO captions; averages are :func:`coco_summary`, the paper's Table 2 are its ``macro_`` entries.

    Args:
        options: what is measured.
        show_progress: draw a progress bar.
    """

    def __init__(self, options: CocoOptions = CocoOptions(), show_progress: bool = False) -> None:
        self.options, self.show_progress = options, show_progress
        self.steps = paper_timesteps(options.timesteps)

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse a split without captions and class masks."""
        self._captions(split)

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run."""
        return float(len(self._captions(split)[0]) * len(self.steps))

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``coco`` and ``coco_excluded``; ``out/coco.jsonl`` remembers what is done."""
        captions, excluded = self._captions(split)
        ledger: Ledger[CaptionEntry] = open_ledger(out, "coco.jsonl", model, split, asdict(self.options), CaptionEntry)
        made = {index: sample_digest(split, index) for index in dict.fromkeys(index for index, _ in captions)}

        def valid(entries: Sequence[CaptionEntry]) -> dict[tuple[int, ...], CaptionEntry]:
            return {tuple(one["caption"]): one for one in entries if one.get("made") == made.get(one["caption"][0])}

        with ledger:
            done = valid(ledger.entries)
            missing = [group for place, group in captions.items() if place not in done]
            self._ground(model, split, list(ranks.share(missing)), ledger, self.show_progress and ranks.is_first)
            entries = [entry for _, entry in sorted(valid(ranks.gather(ledger.entries)).items())]
        rows = [row for entry in entries for row in entry["rows"]]
        lost: list[Row] = [{**asdict(one), "class": one.label} for one in excluded]
        lost += unscored(rows)
        tables = {
            "coco": Table(rows, FIRST),
            "coco_excluded": Table(lost, ("key", "class", "phrase", "reason"), only=True),
        }
        return Result(coco_summary(rows), tables)

    def _captions(self, split: LatentShardsDataset) -> tuple[dict[tuple[int, int], list[CocoSample]], list[Exclusion]]:
        """(image, caption) -> the samples of its classes."""
        samples, excluded = coco_samples(split, self.options.preset, self.options.captioned)
        captions: dict[tuple[int, int], list[CocoSample]] = {}
        for sample in samples:
            captions.setdefault((sample.index, sample.number), []).append(sample)
        return captions, excluded

    def _ground(
        self,
        model: LatentDiffusion,
        split: LatentShardsDataset,
        captions: Sequence[Sequence[CocoSample]],
        ledger: Ledger[CaptionEntry],
        show_progress: bool,
    ) -> None:
        """Ground captions, each the samples of its classes, and enter each into the ledger when its maps are whole."""
        options, tokenizer = self.options, model.text_encoder.tokenizer
        queries = [
            [class_tokens(tokenizer, one.caption, one.label, options.preset) for one in some] for some in captions
        ]
        latents = {group[0].index: evaluation_latents(split, group[0].index, options.seed) for group in captions}
        items = [
            GroundingItem(
                group[0].key,
                latents[group[0].index],
                group[0].caption,
                torch.stack([query.weights for query in some]),  # (classes, L)
            )
            for group, some in zip(captions, queries, strict=True)
        ]
        bar = progress_bar(len(items) * len(self.steps), "pass", "coco", show_progress)
        with bar, undisturbed(model), model.weights(options.ema):
            maps = grounding_pass(model, items, self.steps, options.seed, options.batch_size, on_progress=bar.update)
            for i, heat in mean_over_timesteps(maps, len(self.steps)):  # heat (classes, h, w)
                group = captions[i]
                rows = score_caption(group, queries[i], heat, split.masks(group[0].index))
                made = sample_digest(split, group[0].index)
                ledger.add({"caption": [group[0].index, group[0].number], "made": made, "rows": rows})


def score_caption(
    samples: Sequence[CocoSample], queries: Sequence[Query], heat: Tensor, masks: Mapping[str, NDArray[np.bool_]]
) -> list[dict[str, Value]]:
    """Scores of a caption's classes, one row each; None where undefined.

    Args:
        samples: K of one caption.
        queries: the tokens that answer for the class of each.
        heat: (K, h, w), brought to the size of the masks here; the threshold of mIoU is fitted before that.
        masks: class -> (H, W) bool.
    """
    truth = torch.from_numpy(np.stack([masks[sample.label] for sample in samples]))  # (K, H, W)
    gone = torch.tensor([not query.weights.any() for query in queries])
    heat = heat.masked_fill(gone[:, None, None], torch.nan)  # every word was cut off
    full = resize_maps(heat, (truth.shape[1], truth.shape[2]))  # (K, H, W)
    scores = {**locate_maps(full, truth), "miou": mean_iou(full, truth, mixture_threshold(heat))}
    return [
        {
            "key": sample.key,
            "class": sample.label,
            "phrase": sample.caption,
            "words": " ".join(query.words),
            "cut": " ".join(query.truncated),
            **{name: value if math.isfinite(value := float(scores[name][place])) else None for name in SCORES},
        }
        for place, (sample, query) in enumerate(zip(samples, queries, strict=True))
    ]


def coco_summary(rows: Iterable[Row]) -> dict[str, float]:
    """Means over the captions of each (class, image), then as :func:`meddiff.metrics.summary.summarise`.

    Args:
        rows: with key, class and the scores; None is undefined and left out of an image's mean.

    Returns:
        ``macro_cnr``, ... (the paper's: every class weighs the same), ``cnr``, ... (every (class, image) does),
        ``CLASS/cnr``, ``n`` and ``excluded`` (numbers of (class, image)), ``captions`` (number of rows); defined ones.
    """
    rows = list(rows)
    images: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        images.setdefault((str(row["class"]), str(row["key"])), []).append(row)
    means: list[Row] = []
    for (label, _), some in images.items():
        row_means: dict[str, Value] = {"class": label}
        for name in SCORES:
            values = [float(cell) for cell in (row[name] for row in some) if cell is not None]
            row_means[name] = math.fsum(values) / len(values) if values else None
        means.append(row_means)
    summary = {**summarise(means), "captions": float(len(rows))}
    return {name: value for name, value in summary.items() if not math.isnan(value)}
