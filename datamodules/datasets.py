"""PyTorch datasets over local latent shards, and the loader that runs them (source: own; design decisions 5, 6)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, get_worker_info

from datamodules.items import Rules, make_batch
from datamodules.stream import SampleOrder, check_batch_size, evaluation_positions, micro_batches
from meddiff.common.errors import UserError
from meddiff.shards.batches import LatentBatch
from meddiff.shards.dataset import LatentShardsDataset

#: A batch that is ready.
Ready = TypeVar("Ready")


@dataclass(frozen=True)
class Failure:
    """A :class:`UserError` on its way from a worker; torch would bury its sentence in a traceback."""

    text: str


class PositionedDataset(IterableDataset[LatentBatch | Failure]):
    """An endless dataset that begins where ``position()`` says at the moment an iteration begins.

    The position is asked for in the main process and handed to workers through shared memory, because
    persistent workers keep the copy of the dataset they were born with.
    """

    def __init__(self, position: Callable[[], int]) -> None:
        self.position: Callable[[], int] | None = position
        self._start = torch.zeros(1, dtype=torch.int64).share_memory_()

    def refresh(self) -> None:
        """Ask for the position; main process only."""
        if self.position is not None:
            self._start[0] = self.position()

    def __iter__(self) -> Iterator[LatentBatch | Failure]:
        worker = get_worker_info()
        if worker is None:
            self.refresh()
            return self.batches(int(self._start), 0, 1)
        return _caught(self.batches(int(self._start), worker.id, worker.num_workers))

    def batches(self, start: int, worker: int, workers: int) -> Iterator[LatentBatch]:
        """Micro-batches of one worker from ``start`` images consumed on, without end."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"position": None}  # it belongs to the trainer, which stays at home


def _caught(batches: Iterator[LatentBatch]) -> Iterator[LatentBatch | Failure]:
    try:
        yield from batches
    except UserError as error:
        yield Failure(str(error))


class TrainStream(PositionedDataset):
    """This rank's micro-batches of the endless stream; worker w of W makes numbers w, w + W, w + 2W, ...

    Args:
        dataset: the training split.
        rules: how items are made, seed included.
        batch_size: samples of one optimiser step over all ranks and accumulated micro-batches.
        position: gives the images consumed so far.
    """

    def __init__(
        self,
        dataset: LatentShardsDataset,
        rules: Rules,
        batch_size: int,
        position: Callable[[], int],
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        super().__init__(position)
        check_batch_size(batch_size, world, accumulate)
        self.dataset, self.rules, self.batch_size = dataset, rules, batch_size
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.order = SampleOrder(len(dataset), rules.seed)

    def batches(self, start: int, worker: int, workers: int) -> Iterator[LatentBatch]:
        share = (self.rank, self.world, self.accumulate)
        for places in micro_batches(self.order, self.batch_size, start, *share, worker, workers):
            yield make_batch([self.dataset.entry(sample, epoch) for epoch, sample in places], self.rules)


class EvaluationBatches(Dataset[LatentBatch | Failure]):
    """Batch i of this rank's share of a split, in sorted key order; padding has weight 0.

    Args:
        batch_size: samples per batch and rank; only the last batch may be smaller, on all ranks alike.
    """

    def __init__(
        self, dataset: LatentShardsDataset, rules: Rules, batch_size: int, rank: int = 0, world: int = 1
    ) -> None:
        self.dataset, self.rules, self.batch_size = dataset, rules, batch_size
        self.places = evaluation_positions(len(dataset), rank, world)

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch_size)

    def __getitem__(self, number: int) -> LatentBatch | Failure:
        places = self.places[number * self.batch_size : (number + 1) * self.batch_size]
        try:
            return make_batch([self.dataset.entry(sample, None, weight) for sample, weight in places], self.rules)
        except UserError as error:
            if get_worker_info() is None:
                raise
            return Failure(str(error))

    def sampler(self) -> DistributedSampler[LatentBatch | Failure]:
        """Batches in order. Its type tells Lightning that ranks are already taken care of."""
        return DistributedSampler(self, num_replicas=1, rank=0, shuffle=False)


class ShardLoader(DataLoader[LatentBatch | Failure]):
    """A DataLoader of ready batches (``batch_size=None``): fixes the start, raises workers' errors as they were."""

    def __iter__(self) -> Iterator[LatentBatch]:  # type: ignore[override]
        if isinstance(self.dataset, PositionedDataset):
            self.dataset.refresh()
        return _raised(super().__iter__())

    # Lightning takes a loader with this pair for resumable. It is: the data module keeps the position.
    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


def as_it_is(batch: Ready) -> Ready:
    """A batch that is ready; torch would look through all of its lists for something to convert."""
    return batch


def _raised(batches: Iterator[LatentBatch | Failure]) -> Iterator[LatentBatch]:
    for batch in batches:
        if isinstance(batch, Failure):
            raise UserError(batch.text)
        yield batch
