"""Shards of random moments with the phantoms' captions, for benchmarks: nothing is rendered."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.shards.manifest import Manifest
from meddiff.shards.sample import CohortSample
from meddiff.shards.schema import VaeIdentity
from meddiff.shards.writer import ShardWriter

#: Latents of a 512 px image under Stable Diffusion's autoencoder.
SHAPE = (4, 64, 64)


def write_shards(folder: Path, samples: int, shape: tuple[int, int, int] = SHAPE, in_a_shard: int = 250) -> None:
    """A split ``train`` of ``samples`` moments float16 (2C, h, w), each with the impression of a phantom."""
    channels, height, width = shape
    vae: VaeIdentity = {
        "class": "none",
        "sha256": "0",
        "source": "",
        "scaling_factor": 0.18215,
        "latent_channels": channels,
        "downsample": 8,
    }
    header = Manifest("benchmark", "", {}, vae, "moments", shape, 8 * width, "none")
    noise = np.random.default_rng(0).standard_normal((2 * channels, height, width)).astype(np.float16)
    blank = np.zeros((8 * height, 8 * width), np.uint8)
    cohort = PhantomCohort(PhantomOptions(n=max(64, min(samples, 2000))))
    texts = [cohort.report(place).impression for place in range(min(samples, len(cohort)))]

    def make(keys: Iterable[str]) -> Iterator[tuple[CohortSample, np.ndarray]]:
        for number, key in enumerate(keys):
            text = texts[number % len(texts)]
            yield CohortSample(key, blank, text, ["No Finding"], "train", key), np.roll(noise, number)

    writer = ShardWriter(folder, header, in_a_shard)
    for _ in writer.write_split("train", [f"k{number:06d}" for number in range(samples)], make):
        pass
    writer.finish()
