"""Are pictures drawn from activations the pictures they come from, and do they look real? With the controls of each answer.

*Reconstruction.* The same image, (1) inverted and drawn again under its own activations; (2) drawn from fresh noise under
them, which is what the activations alone know of it; each beside (3) no prototypes and (4) another image's activations from
the same noise. Inversion alone reconstructs whatever the model was told, so only figures from fresh noise say what
prototypes carry.

*Distance.* Pictures drawn from fresh noise under activations of held-out images are compared with other held-out images
(``conditional_heldout``: nothing of the reference was seen), and, as published, with the very images that the activations
come from (``cond_teststate``: content leaks, so it compares with no unconditional figure; spec A8). With a prior over
activations, also pictures drawn without any image (``unconditional``). Source: Weng et al. 2026; controls own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from meddiff.attribution.inversion import ddim_grid, denoise, invert
from meddiff.common.draws import generator
from meddiff.common.outside import file_in
from meddiff.evaluation.feature_cache import Images
from meddiff.evaluation.image_sets import pixels
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.prototype_inputs import inputs_of
from meddiff.evaluation.provenance import Settings, image_made_from, write_image
from meddiff.evaluation.saliency_scores import mean_row
from meddiff.models.patronus import Patronus
from meddiff.models.sampling import initial_noise
from meddiff.shards.dataset import LatentShardsDataset

Pixels = NDArray[np.uint8]
RECONSTRUCTION = ("model", "seed", "images", "from", "told", "value", "low", "high", "n")
OWN, NOTHING, OTHERS = "own prototypes", "no prototypes", "another image's prototypes"
INVERTED, FRESH = "inverted noise", "fresh noise"


def reconstruction_cost(images: int, steps: int) -> float:
    """U-Net evaluations: two inversions (two a step each), and five drawings."""
    return float(images * steps * 9)


def reconstruction_rows(
    model: Patronus,
    split: LatentShardsDataset,
    indices: Sequence[int],
    steps: int,
    seed: int,
    batch_size: int,
    told: Callable[[int], object],
) -> list[Row]:
    """Mean squared error (pictures in [0, 1]) of each way to draw an image again, with intervals over images."""
    timesteps, inputs = ddim_grid(steps, len(model.noise_schedule.alphas_cumprod)), inputs_of(split, seed)
    cells: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
    order = list(indices)
    partner = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        keys = [split.keys[index] for index in part]
        x0 = torch.stack([inputs(index) for index in part]).to(model.device)  # (B, C, h, w)
        other = torch.stack([inputs(partner[index]) for index in part]).to(model.device)
        texts = [str(split.metadata(index)["impression"]) for index in part] if model.reads_text else None
        with torch.no_grad():
            conditions = {
                OWN: model.conditioning(model.activations(x0), texts),
                NOTHING: model.conditioning(None, texts),
                OTHERS: model.conditioning(model.activations(other), texts),
            }
        if len(conditions[NOTHING].states) != len(part):
            conditions[NOTHING] = conditions[NOTHING].expand(len(part))
        fresh = initial_noise(seed, keys, model.latent_shape).to(model.device)
        wanted = model.to_images(x0)
        for name, condition in conditions.items():
            ways = {FRESH: fresh}
            if name != OTHERS:
                ways[INVERTED] = invert(model, x0, condition, timesteps)
                told(2 * len(part) * steps)
            for way, noise in ways.items():
                drawn = model.to_images(denoise(model, noise, condition, timesteps))
                told(len(part) * steps)
                error = ((drawn / 255.0 - wanted / 255.0) ** 2).mean(axis=(1, 2, 3))
                cells.setdefault((way, name), []).extend(
                    (key, "", float(one)) for key, one in zip(keys, error, strict=True)
                )
    return [{"from": way, "told": name, **mean_row(some)} for (way, name), some in sorted(cells.items())]


def reconstruction_figures(rows: Sequence[Row]) -> dict[str, float]:
    """``reconstruction_mse`` (inverted noise, own prototypes) and ``variation_mse`` (fresh noise), each with its controls."""
    names = {OWN: "", NOTHING: "_zero", OTHERS: "_other"}
    kinds = {INVERTED: "reconstruction_mse", FRESH: "variation_mse"}
    return {f"{kinds[str(row['from'])]}{names[str(row['told'])]}": _number(row["value"]) for row in rows}


def _number(value: Value) -> float:
    return float("nan") if value is None else float(value)


@dataclass
class KeptPictures:
    """Pictures drawn for images of a split, in files where there is a folder, so that nothing is drawn twice.

    Attributes:
        draw: (B) indices -> uint8 (B, H, W, 3).
        settings: all that they depend on.
        folder: None keeps nothing.
    """

    split: LatentShardsDataset
    draw: Callable[[Sequence[int]], Pixels]
    settings: Settings
    folder: Path | None

    def images(self) -> Images:
        """(B, 3, H, W) in [-1, 1] of indices."""

        def images(indices: Sequence[int]) -> Tensor:
            found = {index: one for index in indices if (one := self._read(index)) is not None}
            missing = [index for index in indices if index not in found]
            if missing:
                for index, picture in zip(missing, self.draw(missing), strict=True):
                    found[index] = picture
                    if self.folder is not None:
                        self.folder.mkdir(parents=True, exist_ok=True)
                        write_image(self._file(self.folder, index), picture, self._made(index))
            return pixels(np.stack([found[index] for index in indices]))

        return images

    def _file(self, folder: Path, index: int) -> Path:
        return file_in(folder, f"{self.split.keys[index]}.png")

    def _made(self, index: int) -> Settings:
        return {**self.settings, "key": self.split.keys[index]}

    def _read(self, index: int) -> Pixels | None:
        if self.folder is None or image_made_from(self._file(self.folder, index)) != self._made(index):
            return None
        with Image.open(self._file(self.folder, index)) as stored:
            return np.asarray(stored.convert("RGB"))


def conditional(
    model: Patronus, split: LatentShardsDataset, steps: int, seed: int
) -> Callable[[Sequence[int]], Pixels]:
    """Pictures from fresh noise under the activations of images (and their captions, where the model reads any)."""
    timesteps, inputs = ddim_grid(steps, len(model.noise_schedule.alphas_cumprod)), inputs_of(split, seed)

    def draw(indices: Sequence[int]) -> Pixels:
        keys = [split.keys[index] for index in indices]
        texts = [str(split.metadata(index)["impression"]) for index in indices] if model.reads_text else None
        with torch.no_grad():
            x0 = torch.stack([inputs(index) for index in indices]).to(model.device)
            condition = model.conditioning(model.activations(x0), texts)
        noise = initial_noise(seed, keys, model.latent_shape).to(model.device)
        return model.to_images(denoise(model, noise, condition, timesteps))

    return draw


#: Number of activation vectors, and what their draws are addressed by -> (B, m).
Prior = Callable[[Sequence[str], int], Tensor]


def unconditional(
    model: Patronus, split: LatentShardsDataset, prior: Prior, steps: int, seed: int
) -> Callable[[Sequence[int]], Pixels]:
    """Pictures from fresh noise under activations that a prior drew; captions, where the model reads any, stay empty."""
    timesteps = ddim_grid(steps, len(model.noise_schedule.alphas_cumprod))

    def draw(indices: Sequence[int]) -> Pixels:
        keys = [split.keys[index] for index in indices]
        with torch.no_grad():
            condition = model.conditioning(prior(keys, seed).to(model.device))
        noise = initial_noise(seed, [f"unconditional {key}" for key in keys], model.latent_shape).to(model.device)
        return model.to_images(denoise(model, noise, condition, timesteps))

    return draw


def some_of(split: LatentShardsDataset, number: int, seed: int, purpose: str) -> list[int]:
    """``number`` images of a split by an addressed draw, in their order; all where there are fewer."""
    draws = [float(generator(seed, purpose, key).random()) for key in split.keys]
    return sorted(sorted(range(len(draws)), key=lambda index: draws[index])[:number])
