"""Shards written by a pool of processes of one thread each: any number of them, one result. Source: own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Generic

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.common.progress import doing, progress_bar
from meddiff.models.backbones import load_vae
from meddiff.preparation.encode import ENCODE_BATCH, Cohort, Item, Slice, Vae, encoded_slices, item_slices
from meddiff.preparation.jobs import Job, plan_jobs, usable_cores
from meddiff.preparation.wide_posteriors import print_wide_posteriors
from meddiff.shards.manifest import Manifest
from meddiff.shards.sample import CohortSample
from meddiff.shards.writer import ShardWriter

#: What OpenBLAS, MKL and OpenMP ask for their number of threads.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


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
    with doing(f"prepare {header.cohort}: looking at what is in {terminal(out)}", show_progress, stays=False):
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
    manifest = writer.finish(plans)
    print_wide_posteriors(Path(out), manifest)
    return manifest


def _by_index(make_cohort: Callable[[], Cohort]) -> Callable[[int], CohortSample]:
    return make_cohort().__getitem__


def write_jobs(
    make_source: Callable[[], Callable[[Item], CohortSample]],
    jobs: Sequence[Job[Item]],
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
    if processes is not None and processes < 1:
        raise UserError(f"processes is {processes}: give 1 or more.")
    name = writer.header.cohort
    workers = min(processes or usable_cores(), max(1, len(jobs)))
    done = total - sum(len(job.items) for job in jobs)
    title = f"prepare {name}"
    bar = progress_bar(total, "img", f"{title}: starting {workers} processes", show_progress, done)
    # Spawned even when there is one: a process of its own has the one thread the bytes depend on.
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    start = partial(_start_worker, make_source, writer.header, writer.out, writer.samples_per_shard, counter, stop)
    with bar, ProcessPoolExecutor(workers, context, start) as pool:
        pending: set[Future[None]] = set()
        try:
            with _interrupts_held(), _one_thread_each():
                pending = {pool.submit(_write_one, job) for job in jobs}
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                if counter.value:
                    bar.set_description_str(title, refresh=False)
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
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile have one thread for BLAS and OpenMP, which read these names when they are loaded.

    A process a core, each with a thread a core that waits for the others, rendered phantoms four times slower.
    """
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, and for good in processes started meanwhile: a terminal sends it to them too.

    The command stops its workers itself (the event of :func:`_start_worker`), without a traceback from each.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # SLURM's word that time is nearly up reaches all processes of a job and would end these
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Worker(Generic[Item]):
    """What a process of the pool holds: what makes a sample of an item, images done so far, and the sign to stop."""

    make: Callable[[Item], CohortSample]
    vae: "Vae | None"
    writer: ShardWriter
    counter: "Synchronized[int]"
    stop: Event

    def write(self, job: Job[Item]) -> None:
        unreadable: dict[str, str] = {}
        self.writer.write_planned(job.plan, encoded_slices(self._counted(job), self.vae, unreadable), unreadable)

    def _counted(self, job: Job[Item]) -> Iterator[Slice]:
        for one in item_slices(self.make, job.plan.keys, job.items, ENCODE_BATCH):
            if self.stop.is_set():
                raise RuntimeError("the command stops")  # heard by nobody; the half-written shard is removed
            yield one
            with self.counter.get_lock():
                self.counter.value += len(one.samples) + len(one.unreadable)


#: Of this process, which the pool started: one entry, for whatever items its jobs have.
_worker: list[_Worker[Any]] = []


def _start_worker(
    make_source: Callable[[], Callable[[Item], CohortSample]],
    header: Manifest,
    out: Path,
    samples_per_shard: int,
    counter: "Synchronized[int]",
    stop: Event,
) -> None:
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    writer = ShardWriter(out, header, samples_per_shard)
    vae = load_vae(header.vae["source"]) if header.latent != "none" else None
    _worker.append(_Worker(make_source(), vae, writer, counter, stop))


def _end_with_parent() -> None:
    """A killed command leaves no workers behind, which would go on writing beside the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_one(job: Job[Item]) -> None:
    _worker[0].write(job)
