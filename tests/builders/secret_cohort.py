"""A tiny cohort of images with reports, and everything of it that must not leave the machine."""

import json
from pathlib import Path
from typing import NamedTuple

from meddiff.preparation.prepare_cohort import Machine, prepare_reading, read_cohort
from meddiff.shards.access import Access
from tests.builders.files import write_image, write_table

SPLITS = {"train": 8, "val": 4, "grounding": 4, "fidelity": 8}


class Cohort(NamedTuple):
    """Shards of a folder of images, and what must not be found outside the run folder's own files."""

    shards: Path
    secrets: list[str]


def make_cohort(folder: Path, vae: Path, access: Access) -> Cohort:
    """24 images with reports, phrases and boxes, prepared as `lightning prepare folder` does."""
    rows, secrets = [], ["hospital-archive"]
    for split, number in SPLITS.items():
        for k in range(number):
            name, patient = f"hospital-archive/{split}{k}zq.png", f"pat{split}{k}"
            write_image(folder / "root" / name, f"{split}{k}")
            text, phrase = f"moderate edema seen by Dr {split}{k}", f"edema as of {split} visit {k}"
            box = {"x": 30, "y": 20, "w": 20, "h": 20, "label": "Edema", "phrase": phrase}
            rows.append({"image": name, "text": text, "labels": "Edema", "patient": patient, "split": split,
                         "boxes": json.dumps([box])})  # fmt: skip
            secrets += [f"{split}{k}zq", text, phrase, patient]
    write_table(folder / "root" / "meta.csv", ("image", "text", "labels", "patient", "split", "boxes"), rows)
    reading = read_cohort("folder", folder / "root")
    here = Machine(accelerator="cpu", devices=1)
    prepare_reading(reading, folder / "shards", str(vae), 64, here, show_progress=False, access=access)
    return Cohort(folder / "shards", secrets)
