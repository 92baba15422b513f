"""Which shards a split needs, before anything is written: shard k is a fixed slice of the sorted keys. Source: own; design."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meddiff.common.errors import UserError
from meddiff.common.outside import sample_key


@dataclass(frozen=True)
class ShardPlan:
    """One shard still on paper: its file name, its split and the sorted keys that belong into it.

    Attributes:
        made: digest of what its samples are made from; empty where the folder's options say all.
    """

    name: str
    split: str
    keys: tuple[str, ...]
    made: str = ""


def shard_name(split: str, number: int) -> str:
    """``<split>-00000.tar``.

    Raises:
        UserError: a split that cannot name a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise UserError(f"split {split!r} cannot name a shard: use letters, digits and underscores only")
    return f"{split}-{number:05d}.tar"


def plan_shards(split: str, keys: Sequence[str], samples_per_shard: int) -> list[ShardPlan]:
    """Slice the sorted keys of a split into shards.

    Raises:
        UserError: bad split name, bad or duplicate key.
    """
    ordered = sorted(keys)
    for before, key in zip(["", *ordered], ordered, strict=False):
        sample_key(key)
        if before == key:
            raise UserError(f"sample key {key!r} occurs twice in split {split!r}: every image needs a name of its own")
    return [
        ShardPlan(shard_name(split, number), split, tuple(ordered[start : start + samples_per_shard]))
        for number, start in enumerate(range(0, len(ordered), samples_per_shard))
    ]


def keys_digest(keys: Iterable[str]) -> str:
    """sha256 of the keys joined by newlines: tells whether a slice is still the same."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
