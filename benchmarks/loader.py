"""Samples per second of the loaders at Stable Diffusion v2's shapes, beside ``webdataset`` in the same run.

    python benchmarks/loader.py [--samples 2000] [--seconds 4] [--workers 0 2]

2,000 samples of 8 x 64 x 64 float16 moments (a 512 px image) in tars of 250, from the page cache. Both columns of a row
do the same work: "read" gives arrays and metadata (webdataset: ``.shuffle(1000).decode()``), "batches" also makes every
random number of training (posterior, noise, timestep, caption, dropout) and collates micro-batches of 16 (webdataset:
our streaming mode). The floor is what one GPU takes: a loader has to stay ahead of it, more is of no use.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import DataLoader, Dataset

from datamodules import LatentShardsDataModule
from datamodules.datasets import ShardLoader
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from meddiff.shards.sample import CohortSample
from meddiff.shards.schema import VaeIdentity
from meddiff.shards.writer import ShardWriter

SHAPE = (4, 64, 64)
#: Images per second one H200 trains (MLPerf v5.0: 150); a loader has to stay ahead of it.
GPU_IMAGES = 200


def write(folder: Path, samples: int) -> None:
    """A shard folder of random moments."""
    vae: VaeIdentity = {
        "class": "none",
        "sha256": "0",
        "source": "",
        "scaling_factor": 0.18215,
        "latent_channels": 4,
        "downsample": 8,
    }
    header = Manifest("benchmark", "", {}, vae, "moments", SHAPE, 512, "none")
    noise = np.random.default_rng(0).standard_normal((8, 64, 64)).astype(np.float16)
    blank = np.zeros((512, 512), np.uint8)
    text = "No acute cardiopulmonary process. Small left pleural effusion, unchanged."

    def make(keys: Iterable[str]) -> Iterator[tuple[CohortSample, np.ndarray]]:
        for number, key in enumerate(keys):
            yield CohortSample(key, blank, text, ["No Finding"], "train", key), np.roll(noise, number)

    writer = ShardWriter(folder, header, 250)
    for _ in writer.write_split("train", [f"k{number:06d}" for number in range(samples)], make):
        pass
    writer.finish()


class Shuffled(Dataset[dict[str, object]]):
    """Our indexed read in a random order, one sample at a time."""

    def __init__(self, data: LatentShardsDataset) -> None:
        self.data, self.order = data, np.random.default_rng(0).permutation(len(data))

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> dict[str, object]:
        sample = self.data[int(self.order[number % len(self.order)])]
        return {**sample, "latent": torch.from_numpy(sample["latent"].copy())}


def webdataset_decode(urls: list[str], workers: int) -> Iterable[Mapping[str, object]]:
    """What a user of webdataset writes: shard shuffle, sample shuffle, decode."""
    data = wds.WebDataset(urls, shardshuffle=len(urls), workersplitter=wds.split_by_worker, seed=0)
    data = data.shuffle(1000).decode().repeat()
    loader: Iterable[Mapping[str, object]] = wds.WebLoader(data, batch_size=None, num_workers=workers)
    return loader


def rate(make: Callable[[], Iterable[Mapping[str, object]]], seconds: float) -> float:
    """Samples per second after a warm-up of 256 samples."""
    iterator, seen, begun = iter(make()), 0, 0.0
    while True:
        batch = next(iterator)
        keys = batch.get("key")
        seen += len(keys) if isinstance(keys, list) else 1
        if not begun and seen >= 256:
            begun, seen = time.perf_counter(), 0
        elif begun and time.perf_counter() - begun > seconds:
            return seen / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.samples)
        manifest = Manifest.read(folder)
        size = sum(shard.bytes for shard in manifest.shards) / options.samples
        begun = time.perf_counter()
        dataset = LatentShardsDataset(folder, "train")
        print(f"{options.samples} samples of {size / 1e3:.1f} kB; index built in {time.perf_counter() - begun:.2f} s")
        print(f"floor: {GPU_IMAGES} samples/s a GPU = {GPU_IMAGES * size / 1e6:.1f} MB/s")
        urls = [str(folder / shard.name) for shard in manifest.shards]

        def train(shards: str | list[str], workers: int, manifest: str | None = None) -> ShardLoader:
            streamed = manifest is not None
            data = LatentShardsDataModule(
                shards, batch_size=16, num_workers=workers, pin_memory=False, streaming=streamed, manifest=manifest
            )
            return data.train_dataloader()

        row("workers", "block", "ours", "webdataset", "ratio", "ours MB/s", "floor x")
        results = []
        for workers in options.workers:
            pairs = {
                "read": (
                    lambda w=workers: DataLoader(Shuffled(dataset), batch_size=None, num_workers=w),
                    lambda w=workers: webdataset_decode(urls, w),
                ),
                "batches": (
                    lambda w=workers: train(str(folder), w),
                    lambda w=workers: train(urls, w, manifest=str(folder)),
                ),
            }
            for block, (ours, theirs) in pairs.items():
                a, b = rate(ours, options.seconds), rate(theirs, options.seconds)
                row(
                    workers,
                    block,
                    f"{a:,.0f}",
                    f"{b:,.0f}",
                    f"{a / b:.2f}",
                    f"{a * size / 1e6:.0f}",
                    f"{a / GPU_IMAGES:.1f}",
                )
                results.append({"workers": workers, "block": block, "ours": round(a), "webdataset": round(b)})
        print(json.dumps(results))


def row(*cells: object) -> None:
    print("".join(f"{cell!s:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
