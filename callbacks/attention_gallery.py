"""Pictures of what the words look at: overlays of word maps with boxes and masks, during training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from callbacks.evaluation import EvaluationCallback
from callbacks.media import log_images, overlay, write_png
from meddiff.attribution.grounding_pass import GroundingItem, ground, paper_timesteps
from meddiff.attribution.words import QUERY_WORDS, query_tokens
from meddiff.common.files import write_json
from meddiff.evaluation.ranks import gather_rows
from meddiff.evaluation.samples import GroundingSample, evaluation_latents, grounding_samples
from meddiff.metrics.functional import contrast_to_noise_ratio, resize_maps


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
        super().__init__(every_n_images)
        self.split, self.shown, self.batch_size = split, shown, batch_size
        self.query_words = {name: tuple(words) for name, words in (query_words or QUERY_WORDS).items()}
        self.seed = seed
        self.steps = paper_timesteps(timesteps)
        self.chosen: list[GroundingSample] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        dataset = self.dataset(trainer)
        self.chosen, _ = grounding_samples(dataset, list(self.query_words), self.shown, self.seed)

    def forward_passes(self, trainer: Trainer, module: Any) -> float:
        return float(len(self.chosen) * len(self.steps))

    def evaluate(self, trainer: Trainer, module: Any, images: int) -> dict[str, float]:
        dataset = self.dataset(trainer)
        mine = self.chosen[trainer.global_rank :: trainer.world_size]
        folder = Path(trainer.default_root_dir) / "media" / "attention"
        queries = [query_tokens(sample.phrase, self.query_words[sample.label]) for sample in mine]
        items = [
            GroundingItem(
                sample.key, evaluation_latents(dataset, sample.index, self.seed), sample.phrase, query.weights[None]
            )
            for sample, query in zip(mine, queries, strict=True)
        ]

        entries: list[dict[str, Any]] = []
        maps = ground(
            module.unet, module.encode_texts, items, module.alphas_cumprod, self.steps, self.seed, self.batch_size
        )
        for i, heat in maps:
            word = " ".join(queries[i].words) or "(all words)"
            entries.append(_write_entry(folder, images, dataset, mine[i], heat, word))
        entries = sorted(gather_rows(entries), key=lambda entry: (entry["class"], entry["key"]))
        if trainer.is_global_zero:
            write_json(folder / f"{images:09d}.json", entries)
            # from the disk: other ranks drew some of them
            pictures = [
                np.asarray(Image.open(folder / entry["map"])) for entry in entries if (folder / entry["map"]).is_file()
            ]
            log_images(trainer, "grounding/attention", pictures, [f"{e['word']}: {e['phrase']}" for e in entries])
        return {}


def _write_entry(
    folder: Path, images: int, dataset: Any, sample: GroundingSample, heat: Tensor, word: str
) -> dict[str, Any]:
    """Write image, overlay and mask of one phrase; heat (1, h, w)."""
    full = resize_maps(heat, sample.size)[0]  # (H, W)
    image, masks = dataset.image(sample.index), dataset.masks(sample.index)
    name = f"{sample.key}-{sample.label.lower().replace(' ', '_')}"
    files: dict[str, Any] = {"image": f"image-{sample.key}.png", "map": f"{images:09d}-{name}.png", "mask": None}
    if not (folder / str(files["image"])).is_file():
        write_png(folder / str(files["image"]), image)
    write_png(folder / str(files["map"]), overlay(image, full.numpy()))
    if sample.label in masks:
        files["mask"] = f"mask-{name}.png"
        if not (folder / files["mask"]).is_file():
            write_png(folder / files["mask"], np.where(masks[sample.label], 255, 0).astype(np.uint8))
    cnr = float(contrast_to_noise_ratio(full[None], torch.from_numpy(sample.box_mask())[None]))
    return {
        "key": sample.key,
        "class": sample.label,
        "phrase": sample.phrase,
        "word": word,
        **files,
        "boxes": sample.boxes.tolist(),
        "size": [sample.size[1], sample.size[0]],
        "cnr": cnr if cnr == cnr else None,
    }
