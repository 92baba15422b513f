"""How a sweep is run on this machine. Source: own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Plan:
    """How a sweep is run.

    Attributes:
        folder: of the sweep.
        name: of the sweep.
        sweep_id: tells it from others of that name.
        seed: of random and Bayesian search.
        jobs: runs at the same time.
        retry_failed: failed runs are started again.
        cores: of this machine, shared out between the jobs.
        environment: of the runs, before what the sweep adds.
    """

    folder: Path
    name: str
    sweep_id: str
    seed: int = 0
    jobs: int = 1
    retry_failed: bool = False
    cores: int = field(default_factory=cores)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
