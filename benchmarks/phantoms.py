"""Phantoms per second: rendered, and rendered, encoded and written as shards, beside the published code's way.

    python benchmarks/phantoms.py [--samples 600] [--processes 1 2]

The default cohort (128 px) through the autoencoder that ships. "published" is how the published code makes its latents
(spec/tradeoff.md, section 2), on our phantoms: one process, one image at a time, everything kept in memory and saved
as float32 in one file; it has one thread here, as each of our processes has (two threads of one pass over a small image
mostly wait for each other). The floor is the issue's: 10,000 phantoms with latents in 10 minutes on 2 cores. "start" is
what comes before the first sample (imports of the worker processes, statistics of boxes, weights); it is left out of
the rates and added once to the time that 10,000 take. The load is that of the whole machine: with other work on it
the rates are too low.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from meddiff.models.backbones import load_vae
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.encode import encode_images
from meddiff.preparation.jobs import usable_cores
from meddiff.preparation.prepare_phantom import DEFAULT_VAE, prepare_phantom

MANY = 10_000
FLOOR = MANY / 600  # images per second


def render(samples: int) -> float:
    """Pictures, captions, masks and boxes in this process; returns when the first one was begun."""
    cohort = PhantomCohort(PhantomOptions(n=samples))
    begun = time.perf_counter()
    for index in range(samples):
        cohort[index]
    return begun


def prepare(samples: int, processes: int) -> float:
    """What ``lightning prepare phantom`` does; returns when the first shard was begun."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shards"
        begun: list[float] = []

        def watch() -> None:
            while not any(out.glob(".*.tar*")):
                time.sleep(0.02)
            begun.append(time.perf_counter())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        prepare_phantom(PhantomOptions(n=samples), out, processes=processes, show_progress=False)
        watcher.join(1)
    return begun[0]


def published(samples: int) -> float:
    """One process, one image at a time, one file; returns when the first image was begun."""
    cohort, vae = PhantomCohort(PhantomOptions(n=samples)), load_vae(DEFAULT_VAE)
    moments, images = [], []
    begun = time.perf_counter()
    for index in range(samples):
        sample = cohort[index]
        images.append(sample)
        moments.append(torch.from_numpy(encode_images(vae, [sample.image])).float())
    with tempfile.TemporaryDirectory() as folder:
        torch.save(torch.stack(moments), Path(folder) / "img.pt")
        torch.save(images, Path(folder) / "entries.pkl")
    return begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    blocks: dict[str, Callable[[int], float]] = {"published": published, "render": render}
    blocks |= {f"prepare x{count}": partial(prepare, processes=count) for count in options.processes}
    load = os.getloadavg()[0]
    print(f"{options.samples} phantoms; {usable_cores()} cores, load {load:.1f}; floor {FLOOR:.1f} images/s")
    row("block", "images/s", "start s", f"{MANY:,} take", "floor x", "published x")
    rates: dict[str, float] = {}
    for name, work in blocks.items():
        called = time.perf_counter()
        begun = work(options.samples)
        start, rates[name] = begun - called, options.samples / (time.perf_counter() - begun)
        minutes = (start + MANY / rates[name]) / 60
        ratio = rates[name] / rates["published"]
        row(
            name,
            f"{rates[name]:.1f}",
            f"{start:.1f}",
            f"{minutes:.1f} min",
            f"{rates[name] / FLOOR:.1f}",
            f"{ratio:.2f}",
        )
    print(json.dumps({name: round(rate, 1) for name, rate in rates.items()}))


def row(*cells: object) -> None:
    print("".join(f"{cell!s:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
