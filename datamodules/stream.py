"""The endless training stream as arithmetic: which sample stands at which position (source: own; design decision 6).

Epoch e is a permutation of the n samples that depends on (seed, e) alone; the stream is epoch 0, epoch 1, ... end to
end. Optimiser step s, counted from ``start`` images consumed, takes positions ``start + sB`` to ``start + (s+1)B - 1``.
Neither ranks, workers, gradient accumulation nor batch size appear in the stream: they only cut it.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.common.errors import UserError

if TYPE_CHECKING:
    from lightning import Trainer


def epoch_permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of ``n`` samples in one epoch: (n,) int64, a function of its arguments alone."""
    return generator(seed, "order", epoch).permutation(n)


class SampleOrder:
    """Positions of the stream of ``n`` samples under ``seed``; keeps the two permutations a batch can straddle."""

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise UserError("there are no samples to order: the split is empty")
        self.n, self.seed = n, seed
        # On the instance, so that it is pickled (to workers) without the cached arrays.
        self._permutation = lru_cache(maxsize=2)(self._make)

    def _make(self, epoch: int) -> NDArray[np.int64]:
        return epoch_permutation(self.n, self.seed, epoch)

    def position_to_sample(self, position: int) -> tuple[int, int]:
        """(epoch, sample index) at a stream position (images since the beginning of the run)."""
        epoch, place = divmod(position, self.n)
        return epoch, int(self._permutation(epoch)[place])

    def __reduce__(self) -> tuple[type["SampleOrder"], tuple[int, int]]:
        return SampleOrder, (self.n, self.seed)


def check_batch_size(batch_size: int, world: int, accumulate: int) -> int:
    """Samples of one micro-batch on one rank.

    Args:
        batch_size: samples of one optimiser step over all ranks and accumulated micro-batches.

    Raises:
        UserError: it cannot be cut into ``world * accumulate`` equal parts.
    """
    parts = world * accumulate
    if batch_size < 1 or batch_size % parts:
        lower = batch_size // parts * parts
        better = f"{lower} or {lower + parts}" if lower > 0 else f"{parts}"
        raise UserError(
            f"batch_size {batch_size} (all samples of one optimiser step) cannot be shared by {world} ranks x "
            f"{accumulate} accumulated micro-batches = {parts} equal parts: use {better}"
        )
    return batch_size // parts


def accumulation_for(batch_size: int, world: int, largest: int) -> int:
    """Micro-batches of one optimiser step, as few as leave none larger than ``largest`` samples on a rank.

    Args:
        batch_size: samples of one optimiser step over all ranks and accumulated micro-batches.

    Raises:
        UserError: they would not be equal; names the nearest batch size whose are.

    Example:
        >>> accumulation_for(256, world=4, largest=16)
        4
    """
    found = _equal_parts(batch_size, world, largest)
    if found is None:
        near = next(b for d in count() for b in (batch_size - d, batch_size + d) if _equal_parts(b, world, largest))
        raise UserError(
            f"batch_size {batch_size} (all samples of one optimiser step) cannot be shared by {world} ranks in equal "
            f"micro-batches of at most {largest} samples (max_batch_per_device): use {near}"
        )
    return found


def _equal_parts(batch_size: int, world: int, largest: int) -> int | None:
    share, rest = divmod(batch_size, world)
    if share < 1 or rest:
        return None
    parts = -(-share // largest)
    return parts if share % parts == 0 else None


def micro_batch_positions(
    step: int, accumulate_index: int, rank: int, world: int, accumulate: int, batch_size: int, start: int = 0
) -> range:
    """Positions one rank takes in one micro-batch: a contiguous slice of its optimiser step.

    Micro-batches follow one another and ranks lie side by side inside each, so reading all ranks in turn,
    micro-batch by micro-batch, reads the stream in order.

    Args:
        step: optimiser steps since ``start``.
        accumulate_index: 0 to accumulate - 1.
        start: images consumed before step 0 (any integer, need not be a multiple of the batch size).
    """
    size = check_batch_size(batch_size, world, accumulate)
    first = start + step * batch_size + (accumulate_index * world + rank) * size
    return range(first, first + size)


def micro_batches(
    order: SampleOrder,
    batch_size: int,
    start: int,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
    worker: int = 0,
    workers: int = 1,
) -> Iterator[list[tuple[int, int]]]:
    """(epoch, sample) of each item of one rank's micro-batches from ``start`` images consumed on, without end.

    Args:
        worker: of ``workers`` that share them: this one makes numbers worker, worker + workers, ...
    """
    for number in count(worker, workers):
        step, part = divmod(number, accumulate)
        positions = micro_batch_positions(step, part, rank, world, accumulate, batch_size, start)
        yield [order.position_to_sample(position) for position in positions]


def evaluation_positions(n: int, rank: int, world: int) -> list[tuple[int, float]]:
    """(sample index, weight) of one rank in an evaluation of ``n`` samples: r, r + world, r + 2 world, ...

    Every rank gets ceil(n / world) entries; where that overshoots, the last sample is repeated with weight 0,
    so collective calls match and weighted sums over all ranks count every sample once.
    """
    places = range(rank, -(-n // world) * world, world)
    return [(min(place, n - 1), 1.0 if place < n else 0.0) for place in places]


def align_accumulation(trainer: "Trainer") -> None:
    """Let a resumed run begin with a whole optimiser step.

    Lightning steps whenever its own count of micro-batches is a multiple of ``accumulate_grad_batches``. A checkpoint
    made with another accumulation (fewer GPUs now), or in the middle of one, would cut every later step askew.
    """
    loop = getattr(trainer, "fit_loop", None)
    if loop is None or not loop.restarting:
        return
    current = loop.epoch_loop.batch_progress.current
    # A checkpoint written at the end of a batch does not count that batch yet; Lightning adds it when the loop starts.
    at_batch_end = current.ready == current.started == current.processed == current.completed + 1
    surplus = (current.completed + int(at_batch_end)) % trainer.accumulate_grad_batches
    for name in ("ready", "started", "processed", "completed"):
        setattr(current, name, getattr(current, name) - surplus)


def rank_problems(ranks: int, accumulate: int, init_args: Mapping[str, object]) -> list[str]:
    """A sentence where a data module of these arguments cannot share a batch by ``ranks``.

    Args:
        accumulate: the trainer's option, which counts where no ``max_batch_per_device`` is given.
    """
    size, largest = init_args.get("batch_size", 256), init_args.get("max_batch_per_device")
    assert isinstance(size, int)
    try:
        check_batch_size(
            size, ranks, accumulation_for(size, ranks, largest) if isinstance(largest, int) else accumulate
        )
    except UserError as error:
        return [str(error)]
    return []


def accumulate_as_needed(trainer: "Trainer | None", batch_size: int, largest: int | None) -> None:
    """Tell the trainer how many micro-batches make a step, before it makes loaders; calling this again is harmless.

    Lightning counts ``val_check_interval`` in micro-batches; the user's number is one of steps, whatever the hardware.

    Raises:
        UserError: they would not be equal, or the trainer was told another number.
    """
    if trainer is None or largest is None:
        return
    needed, told = accumulation_for(batch_size, trainer.world_size, largest), trainer.accumulate_grad_batches
    if told not in (1, needed):
        raise UserError(
            f"trainer.accumulate_grad_batches is {told}, and data.max_batch_per_device {largest} on {trainer.world_size} "
            f"ranks makes it {needed}: leave one of them out."
        )
    trainer.accumulate_grad_batches = needed
    interval = getattr(trainer, "val_check_interval", None)
    if isinstance(interval, int):
        trainer.val_check_interval = interval * (needed // told)
