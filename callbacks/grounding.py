"""Do the words still point at the right place? Phrase grounding by cross-attention, during training."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.evaluation import EvaluationCallback
from meddiff.attribution.grounding_pass import GroundingItem, ground, paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, Preset, Query, query_tokens, special_tokens
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.evaluation.priors import grounding_controls
from meddiff.evaluation.ranks import gather_rows
from meddiff.evaluation.samples import Exclusion, GroundingSample, evaluation_latents, grounding_samples
from meddiff.metrics.functional import mean_iou, mixture_threshold, resize_maps
from meddiff.metrics.grounding import locate_maps
from meddiff.metrics.summary import summarise
from meddiff.runs.tables import update_controls, write_table

#: Columns of ``RUN/grounding/<images>.csv`` that every row has.
COLUMNS = ("key", "class", "phrase", "words", "cnr", "auroc", "top1", "miou")


class GroundingCallback(EvaluationCallback):
    """Logs ``grounding/*``: CNR, pixel AUROC, Top-1 and mIoU of word maps on the boxes of a held-out split.

    The maps are those of the paper: real latents noised at its timesteps, one conditional forward each, all
    cross-attention layers and heads averaged, the words that name the class. Where exact masks are stored the same maps
    are scored on them (``grounding/mask_*``), on the confounders in the image (``grounding/confounder_cnr``: does the
    word point at the pacemaker?) and on the other findings of the image (``grounding/own_beats_other``), beside the end
    token's map (``grounding/eos_*``). Per-sample rows go to ``RUN/grounding/``.

    Source: Dombrowski et al. 2024, Tables 1 and 3; spec/tradeoff.md sections 5 and 6.

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        split: of the shards.
        samples: number of phrases, balanced over classes; null takes all.
        timesteps: how many of the paper's 40 timesteps.
        batch_size: (phrase, timestep) pairs per forward pass and rank; changes no result.
        preset: "paper" weighs a word twice that matches two query words.
        query_words: class -> words that ask for it; null takes the paper's.
        ema: evaluate the averaged weights instead of the raw ones.
        seed: of noise and subset; the same numbers at every evaluation.
    """

    def __init__(
        self,
        every_n_images: int,
        split: str = "grounding",
        samples: int | None = None,
        timesteps: int = 40,
        batch_size: int = 64,
        preset: Preset = "standard",
        query_words: dict[str, list[str]] | None = None,
        ema: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_images)
        self.split, self.samples, self.batch_size = split, samples, batch_size
        self.preset, self.ema, self.seed = preset, ema, seed
        self.query_words: dict[str, Sequence[str]] = dict(query_words or QUERY_WORDS)
        self.steps = paper_timesteps(timesteps)
        self.chosen: list[GroundingSample] = []
        self.excluded: list[Exclusion] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        dataset = self.dataset(trainer)
        labels = {label for i in range(len(dataset)) for label in dataset.metadata(i)["labels"]}
        missing = sorted(labels & set(FINDINGS) - set(self.query_words))
        if missing:
            raise UserError(
                f"GroundingCallback: no query words for {', '.join(missing)}: add them to query_words, or take the "
                f"class out of the grounding split."
            )
        self.chosen, self.excluded = grounding_samples(dataset, list(self.query_words), self.samples, self.seed)

    def forward_passes(self, trainer: Trainer, module: Any) -> float:
        return float(len(self.chosen) * len(self.steps))

    def evaluate(self, trainer: Trainer, module: Any, images: int) -> dict[str, float]:
        if images == 0 and trainer.is_global_zero:
            datamodule: Any = getattr(trainer, "datamodule", None)
            train = datamodule.dataset(datamodule.train_split)
            controls = grounding_controls(train, self.chosen, list(self.query_words), self.seed)
            update_controls(Path(trainer.default_root_dir), "grounding", controls)
        mine = self.chosen[trainer.global_rank :: trainer.world_size]
        with module.evaluated_weights(ema=self.ema):
            rows = grounding_rows(self, trainer, module, mine)
        rows = sorted(gather_rows(rows), key=lambda row: (row["key"], row["class"], row["phrase"]))
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "grounding"
            write_table(folder / f"{images:09d}.csv", rows, COLUMNS)
            lost = [{**asdict(one), "class": one.label} for one in self.excluded]
            lost += [{**row, "reason": "map is constant or not a number"} for row in rows if row["cnr"] != row["cnr"]]
            lost += [{**row, "reason": f"cut off by the context: {row['cut']}"} for row in rows if row["cut"]]
            write_table(folder / "excluded.csv", lost, ("key", "class", "phrase", "reason"), only=True)
        return {f"grounding/{name}": value for name, value in grounding_summary(rows).items()}


def grounding_rows(
    options: Any,
    trainer: Trainer,
    module: Any,
    samples: Sequence[GroundingSample],
    phrases: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Run the pass over ``samples`` and score every map; one row a sample.

    Args:
        options: anything with the attributes of :class:`GroundingCallback`.
        phrases: texts to use instead of the samples' own (the control with shuffled captions).
    """
    dataset = trainer.datamodule.dataset(options.split)  # type: ignore[attr-defined]
    texts = list(phrases) if phrases is not None else [sample.phrase for sample in samples]
    queries = [
        query_tokens(text, options.query_words[sample.label], options.preset)
        for text, sample in zip(texts, samples, strict=True)
    ]
    latents = {sample.index: evaluation_latents(dataset, sample.index, options.seed) for sample in samples}
    items = [
        GroundingItem(
            sample.key,
            latents[sample.index],
            text,
            torch.stack([query.weights, special_tokens(text)["eos"]]),  # (2, 77)
        )
        for sample, text, query in zip(samples, texts, queries, strict=True)
    ]

    maps = ground(
        module.unet,
        module.encode_texts,
        items,
        module.alphas_cumprod,
        options.steps,
        options.seed,
        options.batch_size,
    )
    return [score_sample(samples[i], queries[i], heat, dataset.masks(samples[i].index)) for i, heat in maps]


def score_sample(sample: GroundingSample, query: Query, heat: Tensor, masks: dict[str, Any]) -> dict[str, Any]:
    """Scores of one sample's maps (word, end token), (2, h, w), brought to the size of the image.

    The threshold of mIoU is fitted on the latents' grid, where the paper fits it too.
    """
    if not query.weights.any():
        heat = torch.full_like(heat, torch.nan)  # every word was cut off: undefined, and listed
    word, eos = resize_maps(heat, sample.size)  # (H, W) each
    box = torch.from_numpy(sample.box_mask())
    row: dict[str, Any] = {"key": sample.key, "class": sample.label, "phrase": sample.phrase}
    row |= {"words": " ".join(query.words), "cut": " ".join(query.truncated)}
    row |= localisation(word, box)
    row["miou"] = float(mean_iou(word[None], box[None], mixture_threshold(heat[:1])))
    row |= {f"eos_{name}": value for name, value in localisation(eos, box).items()}
    for name, mask in masks.items():
        found = localisation(word, torch.from_numpy(mask))
        if name == sample.label:
            row |= {f"mask_{kind}": value for kind, value in found.items()}
        elif name not in FINDINGS:
            row[f"confounder/{name}"] = found["cnr"]
        elif not query.is_fallback:  # a phrase that does not name its finding has no word to compare
            row[f"other/{name}"] = found["cnr"]
    return row


def localisation(heat: Tensor, mask: Tensor) -> dict[str, float]:
    """CNR, AUROC and Top-1 of one map (H, W) on one mask (H, W)."""
    return {name: float(value) for name, value in locate_maps(heat[None], mask[None]).items()}


def grounding_summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Micro, macro and per-class averages; what the end token, the masks and the confounders say; counts."""
    summary = summarise(rows)
    for kind in ("mask", "eos"):
        names = ("cnr", "auroc", "top1")
        some = [
            {"class": row["class"], "miou": None, **{name: row[f"{kind}_{name}"] for name in names}}
            for row in rows
            if f"{kind}_cnr" in row
        ]
        if some:
            found = summarise(some)
            summary |= {f"{kind}_{name}": found[name] for name in (*names, "macro_cnr")}
    confounders = [value for row in rows for name, value in row.items() if name.startswith("confounder/")]
    beaten = [
        float(row["mask_cnr"] > value) for row in rows for name, value in row.items() if name.startswith("other/")
    ]
    fallback = [float(not row["words"]) for row in rows]
    for name, values in (("confounder_cnr", confounders), ("own_beats_other", beaten), ("fallback", fallback)):
        defined = [value for value in values if value == value]
        if defined:
            summary[name] = sum(defined) / len(defined)
    return {name: value for name, value in summary.items() if value == value}
