"""Tiny CelebA, CIFAR-10 and Fashion-MNIST in their official file formats; torchvision's own classes read them."""

import pickle
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.draws import generator

ATTRIBUTES = ("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Smiling")
#: Black, blond, brown and smile of each face, in the order of their files.
FACES = [
    *((1, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 1), (0, 1, 0, 0), (0, 0, 1, 1), (0, 0, 1, 0)),
    *((1, 1, 0, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, 1), (0, 0, 1, 1), (1, 0, 0, 0)),
]
CLASSES = ("airplane", "automobile", "bird")


def write_celeba(root: Path) -> Path:
    """Twelve faces, 178 x 218: eight to train, two to validate, two to test; two faces a person."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number + 1:06d}.jpg" for number in range(len(FACES))]
    for name in names:
        pixels = generator("celeba", name).integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name)
    rows = [(0, black, blond, brown, number % 2, smile) for number, (black, blond, brown, smile) in enumerate(FACES)]
    attributes = [
        " ".join([name, *(f"{2 * value - 1:2d}" for value in row)]) for name, row in zip(names, rows, strict=True)
    ]
    text = {
        "list_attr_celeba.txt": [str(len(names)), " ".join(ATTRIBUTES) + " ", *attributes],
        "identity_CelebA.txt": [f"{name} {number // 2 + 1}" for number, name in enumerate(names)],
        "list_eval_partition.txt": [f"{name} {(n >= 8) + (n >= 10)}" for n, name in enumerate(names)],
        "list_bbox_celeba.txt": [
            str(len(names)),
            "image_id x_1 y_1 width height",
            *(f"{name} 1 2 3 4" for name in names),
        ],
        "list_landmarks_align_celeba.txt": [
            *(str(len(names)), "lefteye_x lefteye_y righteye_x righteye_y"),
            *(f"{name} 69 109 106 113" for name in names),
        ],
    }
    for name, lines in text.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return root


def write_cifar10(root: Path) -> tuple[Path, NDArray[np.uint8]]:
    """Five batches of two and a test batch of two, as pickles; and the pictures of the first batch, (2, 32, 32, 3)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        data = generator("cifar", name).integers(0, 256, (2, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [0, 2]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    first = generator("cifar", "data_batch_1").integers(0, 256, (2, 3072), dtype=np.uint8)
    return root, first.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)


def write_fashion_mnist(root: Path, black: int | None = None) -> tuple[Path, NDArray[np.uint8]]:
    """Three images to train and two to test, as idx files; and those to train, (3, 28, 28).

    Args:
        black: number of an image to train on which there is nothing.
    """
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    sets = {}
    for name, n in (("train", 3), ("t10k", 2)):
        sets[name] = generator("fashion", name).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        if name == "train" and black is not None:
            sets[name][black] = 0
        images = struct.pack(">IIII", 0x803, n, 28, 28) + sets[name].tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + bytes([9, 0, 3][:n]))
    return root, sets["train"]
