"""From a cohort's images to latent shards: render or read, encode, write; several processes, one result."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datamodules.manifest import Manifest
from models.backbones import load_vae, vae_identity
from preparation.sample import CohortSample
from preparation.shards import ShardPlan, ShardWriter

#: Images a VAE pass takes. Fixed, not an option: the last bit of a convolution depends on it, and so would the bytes.
#: On a CPU core 4 are a fifth faster than 16, whose activations leave the cache (benchmarks/phantoms.py).
ENCODE_BATCH = 4


class Cohort(Protocol):
    """What a reader offers: samples by index, with their keys and splits known beforehand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CohortSample: ...

    def keys(self) -> Sequence[str]: ...

    def split_of(self, index: int) -> str: ...


def usable_cores() -> int:
    """Cores this process may run on (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_images(vae: Any, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
    """Posterior moments before scaling.

    Args:
        vae: ``AutoencoderKL``, or ``AutoencoderTiny``, which has no posterior.
        images: uint8 (H, W) or (H, W, 3).

    Returns:
        (B, 2C, h, w) mean and log-variance; (B, C, h, w) latents for ``AutoencoderTiny``. float16.
    """
    import torch

    batch = np.stack([image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images])
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1.0  # (B, 3, H, W) in [-1, 1]
    with torch.inference_mode():
        encoded = vae.encode(pixels.to(next(vae.parameters()).device))
    latents = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latents
    return latents.float().cpu().numpy().astype(np.float16)


def encoded_samples(cohort: Cohort, indices: Sequence[int], vae: Any) -> Iterator[tuple[CohortSample, NDArray[Any]]]:
    """(sample, moments) of the given indices, in their order."""
    for start in range(0, len(indices), ENCODE_BATCH):
        samples = [cohort[index] for index in indices[start : start + ENCODE_BATCH]]
        moments = encode_images(vae, [sample.image for sample in samples])
        yield from zip(samples, moments, strict=True)


def shard_header(name: str, command: str, options: dict[str, Any], vae: str, resolution: int, resize: str) -> Manifest:
    """The manifest's header for a cohort of square images encoded with ``vae``.

    Raises:
        UserError: the resolution does not fit the VAE.
    """
    identity = vae_identity(vae)
    side, left_over = divmod(resolution, identity["downsample"])
    if left_over:
        raise UserError(
            f"resolution {resolution} is no multiple of {identity['downsample']}, what this VAE shrinks by."
        )
    return Manifest(
        cohort=name,
        command=command,
        options=options,
        vae=identity,
        latent="moments" if identity["class"] == "AutoencoderKL" else "mean",
        latent_shape=(identity["latent_channels"], side, side),
        resolution=resolution,
        resize=resize,
    )


def write_shards(
    make_cohort: Callable[[], Cohort],
    out: str | Path,
    header: Manifest,
    processes: int | None = None,
    samples_per_shard: int = 256,
    show_progress: bool = True,
) -> Manifest:
    """Write all shards of a cohort; killed and called again, it goes on and the bytes come out the same.

    Args:
        make_cohort: builds the reader; called once in each process, so it must pickle.
        out: folder of the shards.
        header: from :func:`shard_header`.
        processes: worker processes of one thread each; null means one a core.
        samples_per_shard: samples per tar.
        show_progress: draw a bar with rate and remaining time.
    """
    from tqdm import tqdm

    cohort = make_cohort()
    writer = ShardWriter(out, header, samples_per_shard)
    index = {key: position for position, key in enumerate(cohort.keys())}
    if len(index) != len(cohort):
        raise UserError(f"cohort {header.cohort}: {len(cohort)} samples but {len(index)} different keys.")
    splits: dict[str, list[str]] = {}
    for key, position in index.items():
        splits.setdefault(cohort.split_of(position), []).append(key)
    plans = [plan for split in sorted(splits) for plan in writer.plan(split, splits[split])]
    missing = [plan for plan in plans if writer.done(plan) is None]
    workers = min(processes or usable_cores(), max(1, len(missing)))
    done = len(cohort) - sum(len(plan.keys) for plan in missing)
    bar = tqdm(total=len(cohort), initial=done, unit="img", desc=f"prepare {header.cohort}", disable=not show_progress)
    # Spawned even when there is one: a process of its own has the one thread the bytes depend on.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    start = partial(_start_worker, make_cohort, header, Path(out), samples_per_shard, counter)
    with bar, ProcessPoolExecutor(workers, context, start) as pool:
        pending: set[Future[Any]] = {
            pool.submit(_write_one, plan, [index[key] for key in plan.keys]) for plan in missing
        }
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                bar.update(done + counter.value - bar.n)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return writer.finish(plans)


_worker: dict[str, Any] = {}


def _start_worker(
    make_cohort: Callable[[], Cohort], header: Manifest, out: Path, samples_per_shard: int, counter: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    writer = ShardWriter(out, header, samples_per_shard)
    _worker.update(cohort=make_cohort(), vae=load_vae(header.vae["source"]), writer=writer, counter=counter)


def _write_one(plan: ShardPlan, indices: list[int]) -> None:
    def counted() -> Iterator[tuple[CohortSample, NDArray[Any]]]:
        for pair in encoded_samples(_worker["cohort"], indices, _worker["vae"]):
            with _worker["counter"].get_lock():
                _worker["counter"].value += 1
            yield pair

    _worker["writer"].write_planned(plan, counted())
