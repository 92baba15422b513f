"""Cohorts for `prepare folder`: a table of any form, and a whole one with images, boxes and masks."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.builders.files import write_image, write_table


def write_text_table(root: Path, text: str, name: str = "meta.csv") -> Path:
    """``text`` in UTF-8 below ``root``, which is returned; compressed where the name ends in .gz."""
    root.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    (root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return root


def write_json_lines(root: Path, *rows: Mapping[str, object], name: str = "meta.jsonl") -> Path:
    """One JSON object a line below ``root``, which is returned."""
    return write_text_table(root, "".join(json.dumps(row) + "\n" for row in rows), name)


def many(boxed: int = 60) -> str:
    """A csv of 600 images of 200 patients; the second image of the first ``boxed`` patients has a box."""
    rows = [
        f"{n:04d}.png,text {n},p{n // 3}," + ("1,1,9,9" if n % 3 == 1 and n < 3 * boxed else ",,,") for n in range(600)
    ]
    return "\n".join(["image,text,patient,x,y,w,h", *rows, ""])


def make_folder(root: Path, train: int = 12, boxed: int = 4) -> Path:
    """A cohort for `prepare folder`: `train` images with texts (every fourth is val), `boxed` with a box and a mask.

    Returns:
        ``root``, with images of 80 x 72 pixels and meta.csv below it.
    """
    rows: list[dict[str, str]] = []
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
