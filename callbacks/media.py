"""Pictures of a run: files under ``RUN/media`` that the report shows, and the same pictures for loggers. Source: own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Picture:
    """A picture for a logger.

    Attributes:
        pixels: uint8 (H, W) or (H, W, 3).
        caption: what it shows.
        label: of what ``boxes`` (x, y, w, h in pixels) and ``mask`` (bool (H, W)) are; "" where there are none.
    """

    pixels: NDArray[np.uint8]
    caption: str
    label: str = ""
    boxes: Sequence[Sequence[float]] = ()
    mask: NDArray[np.bool_] | None = None


#: Names of columns, and the rows.
TextTable = tuple[tuple[str, ...], list[tuple[object, ...]]]


@dataclass
class Media:
    """What an evaluation has to show beside its figures, by the name under which it is logged."""

    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    tables: dict[str, TextTable] = field(default_factory=dict)


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


def save_samples(
    trainer: Trainer,
    images: int,
    split: LatentShardsDataset,
    drawn: Mapping[int, NDArray[np.uint8]],
    sampler: str,
    shown: int,
) -> list[Picture]:
    """Keep the first ``shown`` drawn images beside the real images of the same captions; returns them.

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
        pictures.append(Picture(drawn[index], prompt))
    write_json(folder / f"{images:09d}.json", entries)
    return pictures
