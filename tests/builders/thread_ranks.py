"""Two ranks in two threads: what a measurement shares out and gathers, without the seconds that two processes take to start."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from threading import Barrier
from typing import Any

from meddiff.evaluation.measurement import Measurement, Result
from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset


class ThreadRanks(Ranks):
    """One of two that meet where real ones do."""

    def __init__(self, rank: int, meeting: Barrier, table: list[list[Any]]) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "meeting", meeting)
        object.__setattr__(self, "table", table)

    def gather(self, rows: list[Any]) -> list[Any]:
        self.table[self.rank] = rows
        self.meeting.wait(60)
        found = [row for part in self.table for row in part]
        self.meeting.wait(60)
        return found


def on_two_ranks(measurement: Measurement, model: LatentDiffusion, split: LatentShardsDataset) -> list[Result]:
    """What each of both ranks finds."""
    meeting, table = Barrier(2), [[], []]

    def work(rank: int) -> Result:
        return measurement.run(deepcopy(model), split, None, ThreadRanks(rank, meeting, table))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, range(2)))
