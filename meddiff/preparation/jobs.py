"""What is left to write of a folder of shards, a job for each shard, and how many cores there are for it. Source: own."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeAlias

from meddiff.preparation.encode import Item
from meddiff.shards.planning import ShardPlan
from meddiff.shards.writer import ShardWriter


def usable_cores() -> int:
    """Cores this process may run on (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Job(Generic[Item]):
    """A shard to write and the items its samples are made of, one a key."""

    plan: ShardPlan
    items: tuple[Item, ...]


#: split -> key -> what a sample is made of.
Items: TypeAlias = Mapping[str, Mapping[str, Item]]


class Made(NamedTuple):
    """From what samples are made: a digest, and when the newest of their files was written (ns since 1970)."""

    digest: str
    newest: int


def plan_jobs(
    writer: ShardWriter, items: Items[Item], made: Callable[[Sequence[Item]], Made] | None = None
) -> tuple[list[ShardPlan], list[Job[Item]]]:
    """All shards of a folder, and those to be written: missing, of other keys, made from something else, damaged, or with
    unreadable images.

    The last are tried again, so that a mended image gets in by running the command again.

    Args:
        made: what the items of a shard are made from; None where the folder's options say all.
    """
    plans, jobs = [], []
    for plan in [plan for split in sorted(items) for plan in writer.plan(split, list(items[split]))]:
        own = tuple(items[plan.split][key] for key in plan.keys)
        sources = Made("", 0) if made is None else made(own)
        plan = replace(plan, made=sources.digest)
        plans.append(plan)
        record = writer.done(plan)
        if record is None or record.unreadable or (writer.out / plan.name).stat().st_mtime_ns < sources.newest:
            jobs.append(Job(plan, own))
        else:
            writer.records[plan.name] = record
    return plans, jobs
