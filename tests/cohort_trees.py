"""Small trees of images with tables, for tests of `lightning prepare` (also run by child processes that get killed)."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.draws import generator


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_image(path: Path, *address: object, size: tuple[int, int] = (80, 72)) -> Path:
    """A smooth grey picture of its own, (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = generator("tree", *address).integers(0, 256, (6, 6)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def make_folder(root: Path, train: int = 12, boxed: int = 4) -> Path:
    """A cohort for `prepare folder`: `train` images with texts (every fourth is val), `boxed` with a box and a mask."""
    rows: list[dict[str, Any]] = []
    for number in range(train + boxed):
        name = f"images/a{number:03d}.png"
        write_image(root / name, number)
        rows.append({"image": name, "text": f"text number {number}", "labels": "Edema|Pneumonia" if number % 2 else "Edema",
                     "patient": f"p{number}", "split": "val" if number % 4 == 3 else "train"})  # fmt: skip
        if number >= train:
            mask = np.zeros((72, 80), np.uint8)
            mask[20:40, 30:50] = 1
            Image.fromarray(mask).save(root / "images" / f"a{number:03d}_mask.png")
            box = {"x": 30, "y": 20, "w": 20, "h": 20, "label": "Edema", "phrase": "fluid in the middle"}
            rows[-1] |= {
                "split": "grounding",
                "boxes": json.dumps([box]),
                "masks": f"Edema=images/a{number:03d}_mask.png",
            }
    write_table(root / "meta.csv", ("image", "text", "labels", "patient", "split", "boxes", "masks"), rows)
    return root
