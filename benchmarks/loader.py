"""Samples per second of the loaders at Stable Diffusion v2's shapes, beside ``webdataset`` in the same run.

    python -m benchmarks.loader [--samples 2000] [--seconds 4] [--workers 0 1 4]

2,000 samples of 8 x 64 x 64 float16 moments (a 512 px image) in tars of 250. Both columns of a row do the same work:
"read" gives arrays and metadata (webdataset: ``.shuffle(1000).decode()``), "batches" also makes every random number of
training (posterior, noise, timestep, caption, dropout) and collates micro-batches of 16 (webdataset: our streaming mode).

Each block is read twice: "warm" out of the page cache, and "cold", where the kernel is asked to forget the tars
(``posix_fadvise`` DONTNEED) before each pass. Cold means cold for this kernel only: a virtual disk, its host or a network
file system may still hold the bytes in a cache of its own, and nobody can ask it not to. The share of the pages that were
really gone is printed, found out by reading a file with ``RWF_NOWAIT`` (which refuses to wait for a disk).

The floor is ten times what one GPU takes (150 to 200 images/s): a loader has to stay far ahead of it, in all its workers
together; "a worker" is the rate divided by the processes that read. Workers add up as far as there are cores: with fewer
cores than workers, or with other work beside, the row says what the machine has, not what a worker can. "a cpu s" does:
samples per second of processor time where the reading process is this one.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import DataLoader, Dataset

from benchmarks.made_shards import write_shards
from datamodules import LatentShardsDataModule
from datamodules.datasets import ShardLoader
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest

#: Images per second one H200 trains (MLPerf v5.0: 150); a loader has to stay ahead of it.
GPU_IMAGES = 200
#: How many times that a loader should give.
AHEAD = 10
PAGE = 4096

Batches = Iterable[Mapping[str, object]]


class Shuffled(Dataset[dict[str, object]]):
    """Our indexed read in a random order, one sample at a time."""

    def __init__(self, data: LatentShardsDataset) -> None:
        self.data, self.order = data, np.random.default_rng(0).permutation(len(data))

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> dict[str, object]:
        sample = self.data[int(self.order[number % len(self.order)])]
        return {**sample, "latent": torch.from_numpy(sample["latent"].copy())}


def webdataset_decode(urls: list[str], workers: int) -> Batches:
    """What a user of webdataset writes: shard shuffle, sample shuffle, decode."""
    data = wds.WebDataset(urls, shardshuffle=len(urls), workersplitter=wds.split_by_worker, seed=0)
    data = data.shuffle(1000).decode().repeat()
    loader: Batches = wds.WebLoader(data, batch_size=None, num_workers=workers)
    return loader


def forget(files: list[Path]) -> float:
    """Ask the kernel to drop the files' pages; the share of them that a read would now wait for."""
    gone = pages = 0
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not written yet is not dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(descriptor).st_size
            for offset in range(0, size, max(PAGE, size // 16 // PAGE * PAGE)):
                pages += 1
                gone += not _at_hand(descriptor, offset)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # what the look itself has read ahead
        finally:
            os.close(descriptor)
    return gone / max(1, pages)


def _at_hand(descriptor: int, offset: int) -> bool:
    """Whether a page can be read without waiting for a disk."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
    except OSError:
        return False


def rate(make: Callable[[], Batches], seconds: float, cold: list[Path], limit: int) -> tuple[float, float]:
    """Samples per second, and per second of this process's processor time, after the first 256.

    Args:
        seconds: how long to look.
        cold: files to forget first, once the workers have started; then at most ``limit`` samples, one pass, are read.
    """
    iterator, seen, begun, worked = iter(make()), 0, 0.0, 0.0
    while True:
        batch = next(iterator)
        keys = batch.get("key")
        seen += len(keys) if isinstance(keys, list) else 1
        spent = time.perf_counter() - begun
        if not begun:
            if seen >= 256:
                forget(cold)
                begun, worked, seen = time.perf_counter(), time.process_time(), 0
        elif spent > seconds or (cold and seen >= limit):
            return seen / spent, seen / (time.process_time() - worked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("--folder", type=Path, help="where the shards are written: the disk that is measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        compare(Path(name), options.samples, options.seconds, options.workers)


def compare(folder: Path, samples: int, seconds: float, workers: list[int]) -> list[dict[str, object]]:
    """Print the table and return its rows."""
    write_shards(folder, samples)
    manifest = Manifest.read(folder)
    size = sum(shard.bytes for shard in manifest.shards) / samples
    begun = time.perf_counter()
    dataset = LatentShardsDataset(folder, "train")
    files = [folder / shard.name for shard in manifest.shards]
    urls = [str(file) for file in files]
    print(f"{samples} samples of {size / 1e3:.1f} kB; index built in {time.perf_counter() - begun:.2f} s; "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"floor: {AHEAD} x {GPU_IMAGES} samples/s a GPU = {AHEAD * GPU_IMAGES * size / 1e6:.0f} MB/s; "
          f"cold: {100 * forget(files):.0f} % of the pages looked at were gone after asking")  # fmt: skip

    def train(shards: str | list[str], number: int, manifest: str | None = None) -> ShardLoader:
        streamed = manifest is not None
        data = LatentShardsDataModule(
            shards, batch_size=16, num_workers=number, pin_memory=False, streaming=streamed, manifest=manifest
        )
        return data.train_dataloader()

    row("workers", "block", "ours", "a worker", "webdataset", "ratio", "MB/s", "x one GPU", "a cpu s")
    results: list[dict[str, object]] = []
    for number in workers:
        pairs: dict[str, tuple[Callable[[], Batches], Callable[[], Batches]]] = {
            "read": (
                partial(DataLoader, Shuffled(dataset), batch_size=None, num_workers=number),
                partial(webdataset_decode, urls, number),
            ),
            "batches": (partial(train, str(folder), number), partial(train, urls, number, manifest=str(folder))),
        }
        for (block, (ours, theirs)), cold in [(pair, cold) for pair in pairs.items() for cold in (False, True)]:
            dropped = files if cold else []
            (a, work), (b, _) = (rate(one, seconds, dropped, samples) for one in (ours, theirs))
            label = f"{block} {'cold' if cold else 'warm'}"
            cells = (f"{a:,.0f}", f"{a / max(1, number):,.0f}", f"{b:,.0f}", f"{a / b:.2f}", f"{a * size / 1e6:.0f}")
            row(number, label, *cells, f"{a / GPU_IMAGES:.1f}", f"{work:,.0f}" if number == 0 else "-")
            results.append({"workers": number, "block": label, "ours": round(a), "webdataset": round(b)})
    print(json.dumps(results))
    return results


def row(*cells: object) -> None:
    print("".join(f"{cell!s:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
