"""Small made-up samples and shard folders for tests: real tars, invented moments."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.common.findings import NO_FINDING
from meddiff.shards.manifest import NO_VAE, Manifest
from meddiff.shards.sample import Box, CohortSample, Phrase
from meddiff.shards.writer import ShardWriter

CHANNELS, SIDE, PIXELS = 4, 4, 32
SHAPE = (CHANNELS, SIDE, SIDE)
Pair = tuple[CohortSample, NDArray[np.float32]]
VAE: dict[str, str | int | float] = {
    "class": "AutoencoderKL",
    "sha256": "ab" * 32,
    "source": "nowhere",
    "scaling_factor": 0.5,
    "latent_channels": CHANNELS,
    "downsample": 8,
}


def make_pair(split: str, number: int, latent: str = "moments") -> Pair:
    """Sample ``number`` of a split; every third is healthy, every second of the rest has two labels.

    Returns:
        The sample, and its latent: float32 (2C, h, w) for "moments", (C, h, w) for "mean".
    """
    key = f"{split[0]}{number:04d}"
    draw = generator("test sample", key)
    labels = [NO_FINDING] if number % 3 == 0 else ["Edema", "Pleural Effusion"][: 1 + number % 2]
    box = Box("Edema", 3.0, 4.0, 10.0, 8.0)
    mask = np.zeros((PIXELS, PIXELS), bool)
    mask[4:12, 3:13] = True
    sample = CohortSample(
        key=key,
        image=draw.integers(0, 256, (PIXELS, PIXELS), dtype=np.uint8),
        impression=f"Bild {number}: kein Befund, naïve Ärzte",  # not ASCII on purpose
        labels=labels,
        split=split,
        patient_id=f"p{number // 2}",
        view="PA",
        captions=[f"{key} a", f"{key} b", f"{key} c"] if number % 4 == 1 else [],
        phrases=[Phrase("edema", "Edema", (box,))],
        boxes=[box],
        masks={"Pleural Effusion": mask, "tube": ~mask},
        attributes={"side": "left", "severity": np.float32(0.5)},
        source=f"files/{key}",
    )
    channels = 2 * CHANNELS if latent == "moments" else CHANNELS
    return sample, draw.standard_normal((channels, SIDE, SIDE)).astype(np.float32)


def make_pairs(split: str, n: int, latent: str = "moments") -> list[Pair]:
    """The first ``n`` samples of a split, in the order of their keys."""
    return [make_pair(split, number, latent) for number in range(n)]


def make_header(
    *,
    cohort: str = "made-up",
    command: str = "lightning prepare made-up",
    options: dict[str, object] | None = None,
    vae: dict[str, str | int | float] | None = None,
    latent: str = "moments",
    resolution: int = PIXELS,
) -> Manifest:
    """The head of a manifest of made-up samples; null means the options and the VAE of all of them."""
    return Manifest(
        cohort=cohort,
        command=command,
        options={"seed": 0, "sizes": [1, 2]} if options is None else options,
        vae=vae or VAE,
        latent=latent,
        latent_shape=SHAPE,
        resolution=resolution,
        resize="none",
    )


def write_pictures(
    out: Path, sizes: dict[str, int], samples_per_shard: int = 5, latents: bool = False, tubes: bool = False
) -> Manifest:
    """The same folder with the pictures of every split, instead of latents or beside them.

    Args:
        tubes: some samples carry the confounder "tube", by a draw of their own.
    """
    header = replace(make_header(), pictures="all")
    if not latents:
        header = replace(header, vae=NO_VAE, latent="none", latent_shape=(0, 0, 0))
    writer = ShardWriter(out, header, samples_per_shard)
    for split, size in sizes.items():
        pairs = make_pairs(split, size)
        for sample, _ in pairs if tubes else ():
            there = generator("tube", sample.key).random() < 0.5
            sample.attributes = {"confounders": ["tube"] if there else [], "PM": 1 if there else -1}
        writer.write(split, [(sample, moments if latents else None) for sample, moments in pairs])
    return writer.finish()


def write_folder(
    out: Path, sizes: dict[str, int], samples_per_shard: int = 5, header: Manifest | None = None
) -> Manifest:
    """A finished shard folder with ``sizes[split]`` samples of each split."""
    header = header or make_header()
    writer = ShardWriter(out, header, samples_per_shard)
    for split, size in sizes.items():
        writer.write(split, make_pairs(split, size, header.latent))
    return writer.finish()
