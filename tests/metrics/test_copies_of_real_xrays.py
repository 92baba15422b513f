"""Copies among 640 real frontal chest X-rays, where they lie beside the checkout (shared/data/nih_frontal_256)."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from meddiff.common.draws import generator
from meddiff.metrics.functional.copies import copy_threshold, held_out_share, nearest_pixels, pixel_grid

XRAYS = Path(__file__).resolve().parents[3] / "shared" / "data" / "nih_frontal_256"


@pytest.fixture(scope="module")
def halves() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(N, 256, 256) in the place of training, and held out; no patient in both."""
    if not XRAYS.is_dir():
        pytest.skip("the real X-rays (shared/data/nih_frontal_256) are not here")
    with (XRAYS / "meta.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = {row["patient"]: generator(0, "half", row["patient"]).random() < 0.5 for row in rows}
    found = [
        np.stack(
            [np.array(Image.open(XRAYS / row["file"]).convert("L")) for row in rows if first[row["patient"]] == half]
        )
        for half in (True, False)
    ]
    assert sum(map(len, found)) == 640
    return found[0], found[1]


def signed(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).float()[:, None] / 127.5 - 1


def test_training_images_shifted_by_four_pixels_are_caught_and_other_patients_are_not(
    halves: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    train, held_out = map(signed, halves)
    reference = pixel_grid(train)
    real = nearest_pixels(pixel_grid(held_out), reference).distances[:, 0]
    copied = F.pad(train[:100], (4, 0, 4, 0), mode="replicate")[..., :256, :256]
    found = nearest_pixels(pixel_grid(copied), reference)
    assert float((found.distances[:, 0] < copy_threshold(real)).double().mean()) >= 0.99
    assert found.places[:, 0].tolist() == list(range(100))
    assert float(held_out_share(real).double().mean()) <= 0.03
    unshifted = nearest_pixels(pixel_grid(copied), reference, shifts=0).distances[:, 0]
    blind = nearest_pixels(pixel_grid(held_out), reference, shifts=0).distances[:, 0]
    assert float((unshifted < copy_threshold(blind)).double().mean()) < 0.9, (
        "the control: without shifts they are missed"
    )


def test_the_published_pixel_distance_is_that_of_noise_for_any_two_xrays(
    halves: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    pictures = np.concatenate(halves)[generator(0, "pairs").permutation(640)]
    a, b = pictures[:320], pictures[320:]
    wrapped = np.sqrt(((a - b).astype(float) ** 2).mean(axis=(1, 2)))
    true = np.sqrt(((a.astype(float) - b) ** 2).mean(axis=(1, 2)))
    assert wrapped.mean() == pytest.approx(148.4, abs=3), "of bytes, as published"
    assert true.mean() == pytest.approx(60.7, rel=0.15), "of other pairs than the specification's"
