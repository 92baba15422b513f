"""From a cohort's images to latent shards: render or read, encode, write; several processes, one result."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError
from meddiff.models.backbones import load_vae, vae_identity
from meddiff.preparation.images import UnreadableImage
from meddiff.shards.manifest import Manifest
from meddiff.shards.one_shard import Pair
from meddiff.shards.planning import ShardPlan
from meddiff.shards.sample import CohortSample
from meddiff.shards.writer import ShardWriter

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


def encoded_samples(cohort: Cohort, indices: Sequence[int], vae: Any) -> Iterator[Pair]:
    """(sample, moments) of the given indices, in their order."""
    return encoded_slices(item_slices(cohort.__getitem__, indices, indices, ENCODE_BATCH), vae, {})


@dataclass
class Slice:
    """Some neighbouring items of a shard: the samples they gave, and key -> why there is none."""

    samples: list[CohortSample]
    unreadable: dict[str, str]


def item_slices(
    make: Callable[[Any], CohortSample], keys: Sequence[Any], items: Sequence[Any], size: int
) -> Iterator[Slice]:
    """Make the samples of ``items``, ``size`` items at a time; an unreadable image leaves a slice smaller."""
    for start in range(0, len(items), size):
        yield make_slice(make, keys[start : start + size], items[start : start + size])


def make_slice(make: Callable[[Any], CohortSample], keys: Sequence[Any], items: Sequence[Any]) -> Slice:
    """One slice; ``keys`` name the items."""
    done = Slice([], {})
    for key, item in zip(keys, items, strict=True):
        try:
            done.samples.append(make(item))
        except UnreadableImage as reason:
            done.unreadable[str(key)] = str(reason)
    return done


def encoded_slices(slices: Iterable[Slice], vae: Any, unreadable: dict[str, str]) -> Iterator[Pair]:
    """(sample, moments), one VAE pass a slice; what could not be read is entered into ``unreadable``."""
    for one in slices:
        unreadable.update(one.unreadable)
        if one.samples:
            moments = encode_images(vae, [sample.image for sample in one.samples])
            yield from zip(one.samples, moments, strict=True)


def shard_header(name: str, command: str, options: dict[str, Any], vae: str, resolution: int, resize: str) -> Manifest:
    """The manifest's header for a cohort of square images encoded with ``vae``.

    Raises:
        UserError: no VAE, or the resolution does not fit it.
    """
    identity = vae_identity(vae)
    side, left_over = divmod(resolution, identity["downsample"])
    if left_over or side < 1:
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


@dataclass(frozen=True)
class Job:
    """A shard to write and the items its samples are made of, one a key."""

    plan: ShardPlan
    items: tuple[Any, ...]


#: split -> key -> what a sample is made of (an index, a record).
Items = Mapping[str, Mapping[str, Any]]


def plan_jobs(writer: ShardWriter, items: Items) -> tuple[list[ShardPlan], list[Job]]:
    """All shards of a folder, and those to be written: missing, of other keys, damaged, or with unreadable images.

    The last are tried again, so that a mended image gets in by running the command again.
    """
    plans = [plan for split in sorted(items) for plan in writer.plan(split, list(items[split]))]
    jobs = []
    for plan in plans:
        record = writer.done(plan)
        if record is None or record.unreadable:
            jobs.append(Job(plan, tuple(items[plan.split][key] for key in plan.keys)))
        else:
            writer.records[plan.name] = record
    return plans, jobs


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
    cohort = make_cohort()
    writer = ShardWriter(out, header, samples_per_shard)
    index = {key: position for position, key in enumerate(cohort.keys())}
    if len(index) != len(cohort):
        raise UserError(f"cohort {header.cohort}: {len(cohort)} samples but {len(index)} different keys.")
    splits: dict[str, dict[str, int]] = {}
    for key, position in index.items():
        splits.setdefault(cohort.split_of(position), {})[key] = position
    plans, jobs = plan_jobs(writer, splits)
    write_jobs(partial(_by_index, make_cohort), jobs, writer, processes, show_progress, total=len(cohort))
    return writer.finish(plans)


def _by_index(make_cohort: Callable[[], Cohort]) -> Callable[[int], CohortSample]:
    return make_cohort().__getitem__


def write_jobs(
    make_source: Callable[[], Callable[[Any], CohortSample]],
    jobs: Sequence[Job],
    writer: ShardWriter,
    processes: int | None = None,
    show_progress: bool = True,
    total: int = 0,
) -> None:
    """Write shards in a pool of processes.

    Args:
        make_source: called once in each process, so it must pickle; what it gives makes a sample of an item.
        processes: of one thread each; null means one a core.
        total: samples of the whole folder, for the bar.

    Raises:
        UserError: a full disk, a worker that was killed, fewer than 1 process.
        KeyboardInterrupt: Ctrl-C, once the workers have stopped; shards they were writing are not there.
    """
    from tqdm import tqdm

    if processes is not None and processes < 1:
        raise UserError(f"processes is {processes}: give 1 or more.")
    name = writer.header.cohort
    workers = min(processes or usable_cores(), max(1, len(jobs)))
    done = total - sum(len(job.items) for job in jobs)
    bar = tqdm(total=total, initial=done, unit="img", desc=f"prepare {name}", disable=not show_progress)
    # Spawned even when there is one: a process of its own has the one thread the bytes depend on.
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    start = partial(_start_worker, make_source, writer.header, writer.out, writer.samples_per_shard, counter, stop)
    with bar, ProcessPoolExecutor(workers, context, start) as pool:
        pending: set[Future[Any]] = set()
        try:
            with _interrupts_held():
                pending = {pool.submit(_write_one, job) for job in jobs}
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                bar.update(done + counter.value - bar.n)
        except BrokenProcessPool:
            raise UserError(
                f"a worker process of `prepare {name}` was killed, perhaps for want of memory: the shards finished so "
                "far are whole; run the same command again, with fewer --processes if memory is short"
            ) from None
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)  # and wait: nothing writes any more when the error is told
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, and for good in processes started meanwhile: a terminal sends it to them too.

    The command stops its workers itself (the event of :func:`_start_worker`), without a traceback from each.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Any] = {}


def _start_worker(
    make_source: Callable[[], Callable[[Any], CohortSample]],
    header: Manifest,
    out: Path,
    samples_per_shard: int,
    counter: Any,
    stop: Any,
) -> None:
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    writer = ShardWriter(out, header, samples_per_shard)
    vae = load_vae(header.vae["source"])
    _worker.update(make=make_source(), vae=vae, writer=writer, counter=counter, stop=stop)


def _end_with_parent() -> None:
    """A killed command leaves no workers behind, which would go on writing beside the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_one(job: Job) -> None:
    unreadable: dict[str, str] = {}

    def counted() -> Iterator[Slice]:
        for one in item_slices(_worker["make"], job.plan.keys, job.items, ENCODE_BATCH):
            if _worker["stop"].is_set():
                raise RuntimeError("the command stops")  # heard by nobody; the half-written shard is removed
            yield one
            with _worker["counter"].get_lock():
                _worker["counter"].value += len(one.samples) + len(one.unreadable)

    _worker["writer"].write_planned(job.plan, encoded_slices(counted(), _worker["vae"], unreadable), unreadable)
