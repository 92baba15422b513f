"""Pictures of drawn images beside their nearest training images: who looks at them needs no number. Source: own."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from meddiff.common.files import atomic_open
from meddiff.common.outside import file_in
from meddiff.evaluation.compared_sets import decoded
from meddiff.evaluation.drawing import read_images
from meddiff.evaluation.feature_cache import PIXELS
from meddiff.evaluation.measurement import Row
from meddiff.models.eight_bits import eight_bits
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset

FOLDER = "copies"
#: Pairs of a set.
PAIRS = 8
#: set -> folder of its drawn images
DRAWN = {"": "copies_training", "held_out_captions": "copies"}


def leave_pairs(out: Path, rows: Sequence[Row], model: LatentDiffusion, train: LatentShardsDataset) -> list[Path]:
    """``copies/training_captions.png`` and ``copies/held_out_captions.png``: left the drawn image, right the training image
    that it is nearest to in pixels, the most alike first; as they are, not moved onto each other.

    Args:
        rows: of the table ``copied_images``.
    """
    place = {key: i for i, key in enumerate(train.keys)}
    written = []
    for name, folder in DRAWN.items():
        mine = [row for row in rows if row["set"] == name and row["space"] == PIXELS]
        mine = sorted(mine, key=lambda row: (float(str(row["distance"])), str(row["key"])))[:PAIRS]
        if not mine:
            continue
        drawn = read_images(out / "images" / folder, [str(row["key"]) for row in mine])  # (N, 3, H, W)
        real = decoded(model, train).images([place[str(row["nearest"])] for row in mine])
        lines = [
            np.concatenate([a, b], axis=1)
            for a, b in zip(_last(drawn.numpy()), _last(eight_bits(real).numpy()), strict=True)
        ]
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(lines, axis=0)).save(buffer, "PNG")
        file = file_in(out / FOLDER, f"{name or 'training_captions'}.png")
        with atomic_open(file) as stream:
            stream.write(buffer.getvalue())
        written.append(file)
    return written


def _last(images: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) -> (N, H, W, 3)."""
    return images.transpose(0, 2, 3, 1)
