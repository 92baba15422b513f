"""Work shared among processes. Source: own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that measure together; one alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have found."""
        return self.rank == 0

    def share(self, items: Sequence[T], before: int = 0) -> Sequence[T]:
        """Every world-th item of ``items``, so that no two shares differ by more than one.

        Args:
            before: items that were shared out before these: where several lists are, the ranks take turns with the item
                more, and what a rank does over all of them differs by one, too.
        """
        return items[(self.rank - before) % self.world :: self.world]

    def gather(self, rows: list[T]) -> list[T]:
        """The rows of all ranks on every rank, in the order of ranks."""
        if self.world == 1:
            return rows
        parts: list[list[T] | None] = [None] * self.world
        torch.distributed.all_gather_object(parts, rows)
        return [row for part in parts for row in part or []]
