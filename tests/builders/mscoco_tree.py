"""MS-COCO downloads with the official names and fields, of images of 20 x 12 pixels."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 12, 20
CATEGORIES: list[dict[str, object]] = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 17, "name": "cat"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
    {"supercategory": "other", "id": 99, "name": "unicorn"},
]
SQUARE = [[2, 2, 8, 2, 8, 7, 2, 7]]

#: An entry of one of the lists in an annotation file.
Entry = dict[str, object]


def image(number: int, **changes: object) -> Entry:
    """An entry of an image."""
    name = f"{number:012d}.jpg"
    return {"license": 4, "file_name": name, "coco_url": f"http://images.cocodataset.org/x/{name}", "height": HEIGHT,
            "width": WIDTH, "date_captured": "2013-11-14 17:02:52", "flickr_url": "", "id": number} | changes  # fmt: skip


def instance(number: int, image_id: int, category: object, **changes: object) -> Entry:
    """An entry of an instance, a square."""
    return {"segmentation": SQUARE, "area": 30.0, "iscrowd": 0, "image_id": image_id, "bbox": [2, 2, 6, 5],
            "category_id": category, "id": number} | changes  # fmt: skip


def caption(number: int, image_id: int, text: str) -> Entry:
    """An entry of a caption."""
    return {"image_id": image_id, "id": number, "caption": text}


def write_subset(
    root: Path, subset: str, images: Sequence[Entry], captions: Sequence[Entry], instances: Sequence[Entry]
) -> None:
    """The two annotation files of ``subset`` (val2017, train2017) and its folder, which is empty."""
    head = {"info": {"year": 2017}, "licenses": [{"id": 4}], "images": images}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / subset).mkdir(exist_ok=True)
    for kind, annotations in (("captions", captions), ("instances", instances)):
        value = head | {"annotations": annotations} | ({"categories": CATEGORIES} if kind == "instances" else {})
        (root / "annotations" / f"{kind}_{subset}.json").write_text(json.dumps(value), encoding="utf-8")


def runs_of(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths down the columns of (H, W), background first, counted pixel by pixel."""
    runs, current = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if bool(mask[y, x]) != current:
                runs.append(0)
                current = not current
            runs[-1] += 1
    return runs


def val_tree(root: Path) -> Path:
    """val2017 alone, with everything that may be wrong in it; returns ``root``."""
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[3:6, 10:19] = True
    runs = {"size": [HEIGHT, WIDTH], "counts": runs_of(crowd)}
    write_subset(
        root,
        "val2017",
        [
            image(139), image(285), image(632), image(724), image(785), image(139), image(802, file_name="../802.jpg"),
            image(872, file_name="/etc/872.jpg"), image(885, width=0), {"id": "x"}, image(1000),
        ],
        [
            caption(1, 139, "A cat sits  beside\na dog."), caption(2, 139, "  "), caption(3, 139, "Two dogs."),
            caption(4, 285, "A bear is located in grass."), caption(5, 632, "It is tied to nothing."),
            caption(6, 785, ""), caption(7, 424242, "A cat."), caption(3, 139, "A repeated id."), caption(8, 802, "A cat."),
            caption(9, 1000, "A small cat."), {"image_id": 139, "id": 10}, {"id": None},
        ],
        [
            instance(11, 139, 17), instance(12, 139, 18, segmentation=runs, iscrowd=1, bbox=[10, 3, 9, 3]),
            instance(13, 139, 18, segmentation=[[12, 8, 16, 8, 16, 11, 12, 11]], bbox=[12, 8, 4, 3]),
            instance(14, 139, 17, bbox=[4, 4, 0, 3]), instance(15, 139, 99), instance(16, 139, 77), instance(22, 139, [1]),
            instance(17, 139, 1, segmentation=[[1, 2]]), instance(18, 139, 1, bbox=[20, 2, 3, 3]),
            instance(19, 5, 1), instance(13, 139, 1), instance(20, 1000, 1), instance(21, 139, 1, bbox=[1, 2, 3]),
        ],
    )  # fmt: skip
    return root


def train_tree(root: Path, n: int, order: int = 1) -> Path:
    """val2017 and n images of train2017, every tenth of which names no class; ``order`` -1 lists them backwards."""
    numbers = list(range(2000, 2000 + n))[::order]
    texts = {number: "Nothing here." if number % 10 == 0 else "A dog." for number in numbers}
    captions = [caption(number, number, text) for number, text in texts.items()]
    instances = [instance(number, number, 18, segmentation="not looked at") for number in numbers]
    write_subset(val_tree(root), "train2017", [image(number) for number in numbers], captions, instances)
    return root
