"""What is left to write of a folder of shards, a job for each shard, and how many cores there are for it. Source: own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias

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


def plan_jobs(writer: ShardWriter, items: Items[Item]) -> tuple[list[ShardPlan], list[Job[Item]]]:
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
