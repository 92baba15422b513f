"""Batches of an evaluation side by side on the cores of a CPU. Source: own.

Two threads inside of an operation wait for each other a hundred times a forward pass of a small network, busily, and more so
when another program wants a core; two batches at a time wait once. Results do not depend on the number of cores: a batch is
computed by one of them.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

#: Held while samples are read: descriptors of shards belong to one thread at a time.
READING = threading.Lock()


@contextmanager
def one_core() -> Iterator[None]:
    """Operations meanwhile take one core of the CPU: those on single maps are too short to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def over_cores(
    work: Callable[[Sequence[T]], R], items: Sequence[T], batch_size: int, device: torch.device
) -> Iterator[R]:
    """What ``work`` makes of each batch of ``items``, in their order; without autograd.

    Args:
        work: called in several threads on a CPU, each of which computes with one core.
        batch_size: at most so many at a time; on a CPU the batches are no larger than lets every core have one.
        device: on any but a CPU, or with one core, batches come one after the other.
    """
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    size = max(1, min(batch_size, -(-len(items) // cores)))
    parts = [items[start : start + size] for start in range(0, len(items), size)]

    @torch.no_grad()
    def worked(part: Sequence[T]) -> R:
        return work(part)

    if cores == 1 or len(parts) < 2:
        yield from map(worked, parts)
        return
    pool = ThreadPoolExecutor(min(cores, len(parts)), initializer=torch.set_num_threads, initargs=(1,))
    pending: deque[Future[R]] = deque()
    try:
        for part in parts:
            pending.append(pool.submit(worked, part))
            if len(pending) > cores:  # one waits: memory holds no more
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # the pool's number is also that of libraries which keep one for all threads
