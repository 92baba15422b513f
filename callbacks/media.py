"""Pictures of a run: files under ``RUN/media`` that the report shows, and the same pictures in W&B. Source: own."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from PIL import Image

from meddiff.common.files import atomic_open, write_json

#: Colours of the heat map from low to high (perceptually ordered, readable in greyscale and with colour blindness).
_STOPS = np.array(
    [(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float64
)  # anchor colours of matplotlib's "magma" (CC0)


def colour_map(values: np.ndarray) -> np.ndarray:
    """Values in 0..1, (H, W) -> uint8 RGB (H, W, 3)."""
    places = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(values, places, _STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay(image: np.ndarray, heat: np.ndarray, strength: float = 0.65) -> np.ndarray:
    """A word's map over a grey or colour image, uint8 (H, W, 3): the stronger the map, the more of it shows.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        heat: float (H, W); stretched from its minimum to its maximum.
    """
    span = float(heat.max() - heat.min())
    level = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    grey = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)  # (H, W, 3)
    share = (strength * level)[..., None]
    return ((1 - share) * grey + share * colour_map(level)).round().astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """uint8 (H, W) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    with atomic_open(path) as stream:
        stream.write(buffer.getvalue())


def log_images(trainer: Trainer, name: str, images: Sequence[np.ndarray], captions: Sequence[str]) -> None:
    """To every logger that takes images (W&B's does)."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image") and images:
            logger.log_image(
                name, [Image.fromarray(image) for image in images], step=trainer.global_step, caption=list(captions)
            )


def save_samples(
    trainer: Trainer,
    images: int,
    dataset: Any,
    captions: Mapping[int, str],
    drawn: Mapping[int, np.ndarray],
    sampler: str,
    shown: int,
) -> None:
    """Keep the first ``shown`` drawn images beside the real images of the same captions.

    Args:
        captions: index in the split -> prompt.
        drawn: index in the split -> uint8 (H, W, 3).
    """
    folder = Path(trainer.default_root_dir) / "media" / "samples"
    entries, pictures = [], []
    for index in list(drawn)[:shown]:
        key = dataset.keys[index]
        name, real = f"{images:09d}-{key}.png", f"real-{key}.png"
        write_png(folder / name, drawn[index])
        if not (folder / real).is_file():
            write_png(folder / real, dataset.image(index))
        entries.append({"key": key, "prompt": captions[index], "image": name, "real": real, "sampler": sampler})
        pictures.append(drawn[index])
    write_json(folder / f"{images:09d}.json", entries)
    log_images(trainer, "fidelity/samples", pictures, [entry["prompt"] for entry in entries])
