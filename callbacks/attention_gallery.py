"""Pictures of what the words look at: overlays of word maps with boxes and masks, during training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from callbacks.evaluation import EvaluationCallback, ranks_of, run_folder
from callbacks.media import Media, Picture, keep_png, write_png
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps
from meddiff.attribution.overlay import overlay
from meddiff.attribution.words import query_tokens
from meddiff.common.errors import refuse
from meddiff.common.files import write_json
from meddiff.common.outside import file_in, file_part, inside
from meddiff.common.ranges import COUNT, range_problems
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.samples import GroundingSample, evaluation_latents
from meddiff.metrics.functional import contrast_to_noise_ratio, resize_maps
from meddiff.models.latent_diffusion import LatentDiffusion, model_of
from meddiff.runs import names
from meddiff.shards.dataset import LatentShardsDataset

#: One phrase of the gallery; ``image``, ``map`` and ``mask`` are files, ``boxes`` x, y, w, h in pixels, ``size`` (W, H).
Entry = TypedDict(
    "Entry",
    {
        "key": str,
        "class": str,
        "phrase": str,
        "word": str,
        "image": str,
        "map": str,
        "mask": str | None,
        "boxes": list[list[float]],
        "size": list[int],
        "cnr": float | None,
    },
)


class AttentionGalleryCallback(EvaluationCallback):
    """Writes ``RUN/media/attention`` and sends the same overlays to W&B: the same phrases at every evaluation.

    Source: own (Dombrowski et al. 2024, Figures 1 and 4 show such overlays).

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        split: of the shards.
        shown: number of phrases, balanced over classes.
        timesteps: how many of the paper's 40 timesteps.
        batch_size: (phrase, timestep) pairs per forward pass.
        query_words: class -> words that ask for it; null takes the paper's.
        seed: of noise and choice.
    """

    def __init__(
        self,
        every_n_images: int,
        split: str = "grounding",
        shown: int = 16,
        timesteps: int = 10,
        batch_size: int = 64,
        query_words: dict[str, list[str]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_images, split)
        refuse(range_problems({"shown": shown}, {"shown": COUNT}, "AttentionGalleryCallback: "))
        options = GroundingOptions(split, shown, timesteps, batch_size, seed=seed, query_words=query_words)
        self.options, self.grounding = options, Grounding(options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.grounding.check(self.dataset(trainer))

    def forward_passes(self, trainer: Trainer, module: LightningModule) -> float:
        return self.grounding.cost(model_of(module), self.dataset(trainer))

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        """Pictures, no figures."""
        ranks, options, steps = ranks_of(trainer), self.options, self.grounding.steps
        mine = ranks.share(self.grounding.samples(split)[0])
        folder = inside(run_folder(trainer), f"{names.MEDIA}/{names.ATTENTION}")
        tokenizer = model.text_encoder.tokenizer
        queries = [query_tokens(tokenizer, sample.phrase, options.queries[sample.label]) for sample in mine]
        items = [
            GroundingItem(
                sample.key, evaluation_latents(split, sample.index, options.seed), sample.phrase, query.weights[None]
            )
            for sample, query in zip(mine, queries, strict=True)
        ]
        entries: list[Entry] = []
        maps = grounding_pass(model, items, steps, options.seed, options.batch_size)
        with model.weights(ema=False):
            for i, heat in mean_over_timesteps(maps, len(steps)):
                word = " ".join(queries[i].words) or "(all words)"
                entries.append(_write_entry(folder, images, split, mine[i], heat, word))
        entries = sorted(ranks.gather(entries), key=lambda entry: (entry["class"], entry["key"]))
        if trainer.is_global_zero:
            write_json(folder / f"{images:09d}.json", entries)
            # from the disk: other ranks drew some of them
            there = [entry for entry in entries if (folder / entry["map"]).is_file()]
            self.media = Media({"grounding/attention": [_picture(folder, entry) for entry in there]})
        return {}


def _picture(folder: Path, entry: Entry) -> Picture:
    """An overlay with the boxes and the mask of its finding."""
    mask = None if entry["mask"] is None else np.asarray(Image.open(file_in(folder, entry["mask"]))) > 0
    pixels = np.asarray(Image.open(file_in(folder, entry["map"])))
    return Picture(pixels, f"{entry['word']}: {entry['phrase']}", entry["class"], entry["boxes"], mask)


def _write_entry(
    folder: Path, images: int, dataset: LatentShardsDataset, sample: GroundingSample, heat: Tensor, word: str
) -> Entry:
    """Write image, overlay and mask of one phrase; heat (1, h, w)."""
    full = resize_maps(heat, sample.size)[0]  # (H, W)
    image, masks = dataset.image(sample.index), dataset.masks(sample.index)
    name = f"{sample.key}-{file_part(sample.label)}"
    picture, drawn, mask = keep_png(folder, f"image-{sample.key}", image), f"{images:09d}-{name}.png", None
    write_png(file_in(folder, drawn), overlay(image, full.numpy()))
    if sample.label in masks:
        mask = keep_png(folder, f"mask-{name}", np.where(masks[sample.label], 255, 0).astype(np.uint8))
    cnr = float(contrast_to_noise_ratio(full[None], torch.from_numpy(sample.box_mask())[None]))
    return {
        "key": sample.key,
        "class": sample.label,
        "phrase": sample.phrase,
        "word": word,
        "image": picture,
        "map": drawn,
        "mask": mask,
        "boxes": sample.boxes.tolist(),
        "size": [sample.size[1], sample.size[0]],
        "cnr": cnr if cnr == cnr else None,
    }
