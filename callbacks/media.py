"""Pictures of a run: files under ``RUN/media`` that the report shows, and the same pictures in W&B. Source: own."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.files import atomic_open, write_json
from meddiff.common.outside import file_in, inside
from meddiff.runs import names
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.members import png_bytes


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """uint8 (H, W) or (H, W, 3)."""
    with atomic_open(path) as stream:
        stream.write(png_bytes(Image.fromarray(pixels)))


def keep_png(folder: Path, stem: str, pixels: NDArray[np.uint8]) -> str:
    """Have the picture in ``folder``; returns the name of its file.

    That is ``STEM.png`` unless another picture has it already: a run that goes on may read other data, with the same keys,
    and what was drawn before must keep the picture it was drawn beside.
    """
    data = png_bytes(Image.fromarray(pixels))
    for name in (f"{stem}.png", f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}.png"):
        if not file_in(folder, name).is_file():
            with atomic_open(folder / name) as stream:
                stream.write(data)
            return name
        if np.array_equal(np.asarray(Image.open(folder / name)), pixels):
            return name
    return name


def log_images(trainer: Trainer, name: str, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> None:
    """To every logger that takes images (W&B's does)."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image") and images:
            logger.log_image(
                name, [Image.fromarray(image) for image in images], step=trainer.global_step, caption=list(captions)
            )


def save_samples(
    trainer: Trainer,
    images: int,
    split: LatentShardsDataset,
    drawn: Mapping[int, NDArray[np.uint8]],
    sampler: str,
    shown: int,
) -> None:
    """Keep the first ``shown`` drawn images beside the real images of the same captions.

    Args:
        images: seen in training.
        drawn: index in the split -> uint8 (H, W, 3).
    """
    folder = inside(trainer.default_root_dir, f"{names.MEDIA}/{names.SAMPLES}")
    entries, pictures = [], []
    for index in list(drawn)[:shown]:
        key, prompt = split.keys[index], split.metadata(index)["impression"]
        name, real = f"{images:09d}-{key}.png", keep_png(folder, f"real-{key}", split.image(index))
        write_png(file_in(folder, name), drawn[index])
        entries.append({"key": key, "prompt": prompt, "image": name, "real": real, "sampler": sampler})
        pictures.append(drawn[index])
    write_json(folder / f"{images:09d}.json", entries)
    log_images(trainer, "fidelity/samples", pictures, [entry["prompt"] for entry in entries])
