"""The pneumonia challenge of the RSNA: small trees with the official names and columns."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.builders.files import write_lines

OTHER = "No Lung Opacity / Not Normal"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def write_stage_2(root: Path, labels: Sequence[str], classes: Sequence[str]) -> Path:
    """The two tables with these rows and an empty folder of images below ``root``, which is returned."""
    write_lines(root / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *labels)
    write_lines(root / "stage_2_detailed_class_info.csv", "patientId,class", *classes)
    (root / "stage_2_train_images").mkdir(exist_ok=True)
    return root


def ugly_tree(root: Path) -> Path:
    """One image for each thing that can happen; returns ``root``."""
    return write_stage_2(
        root,
        [
            "a-1,264.0,152.0,213.0,379.0,1", "a-1,562.0,152.0,256.0,453.0,1", "b-2,,,,,0", "c-3,,,,,0",
            "a-1,264.0,152.0,213.0,379.0,1", "../d,1,1,2,2,1", "e-5,10,10,0,9,1", "f-6,10,,4,4,1", "g-7,1,1,4,4,0",
            "h-8,,,,,1", "i-9,1024,0,9,9,1", "j-10,,,,,0", "k-11,,,,,0", "l-12,0,0,5,5,1", "m-13,,,,,0",
            "n-14,1,1,4,4,2",
        ],
        [
            "a-1,Lung Opacity", "a-1,Lung Opacity", "b-2,Normal", f"c-3,{OTHER}", "../d,Lung Opacity", "e-5,Lung Opacity",
            "f-6,Lung Opacity", "g-7,Lung Opacity", "h-8,Lung Opacity", "i-9,Lung Opacity", "j-10,Normal",
            f"j-10,{OTHER}", "k-11,Healthy", "l-12,Normal", "z-26,Normal", "n-14,Lung Opacity",
        ],
    )  # fmt: skip


def many(root: Path) -> Path:
    """600 images of 200 patients, the first image of every second patient with a box; returns ``root``."""
    names = [f"x-{n:03d}" for n in range(600)]
    boxed = [n % 6 == 0 for n in range(600)]
    labels = [f"{name},1,1,9,9,1" if box else f"{name},,,,,0" for name, box in zip(names, boxed, strict=True)]
    classes = [f"{name},{'Lung Opacity' if box else 'Normal'}" for name, box in zip(names, boxed, strict=True)]
    pairs = [
        {"subset_img_id": name, "img_id": f"{n // 3:08d}_{n % 3:03d}.png", "orig_labels": ["Infiltration"]}
        for n, name in enumerate(names)
    ]
    write_stage_2(root, labels, classes).joinpath(MAPPING).write_text(json.dumps(pairs), encoding="utf-8")
    return root
