"""Which parameters the next run of a sweep has, whatever the method. Source: own."""

import math
from collections.abc import Callable, Sequence
from typing import cast

from meddiff.launch import search
from meddiff.launch.objective import Measured, finite
from meddiff.launch.optuna_search import Trial, next_point
from meddiff.launch.parameters import Values
from meddiff.launch.record import FAILED, INTERRUPTED, RUNNING, RunRecord
from meddiff.launch.sweep_file import SweepFile


def next_values(
    sweep: SweepFile, seed: int, runs: Sequence[RunRecord], measured: Callable[[RunRecord], Measured]
) -> Values | None:
    """Parameters of a new run; None when there is to be none.

    Args:
        seed: of the sweep.
        runs: all so far, in whatever state: each counts as done.
        measured: what a run has logged.
    """
    if sweep.run_cap is not None and len(runs) >= sweep.run_cap:
        return None
    if sweep.method == "grid":
        return search.next_of_grid(sweep.parameters, [one.values for one in runs])
    if sweep.method == "random":
        return search.random_point(sweep.parameters, seed, len(runs) + 1)
    trials = [trial(sweep, one, measured(one)) for one in runs]
    return next_point(sweep.parameters, [one.goal for one in sweep.objectives], trials, seed)


def trial(sweep: SweepFile, one: RunRecord, measured: Measured) -> Trial:
    """A run as Optuna hears of it: the newest value of each objective counts."""
    if one.state in (RUNNING, INTERRUPTED):
        return Trial(one.values, "running")
    found = finite([measured.newest(objective.name) for objective in sweep.objectives])
    if one.state == FAILED or found is None:
        return Trial(one.values, "fail")
    return Trial(one.values, "complete", found)


def total_runs(sweep: SweepFile) -> int:
    """Runs that a sweep has when it is done, if nothing ends it before."""
    if sweep.method != "grid":
        return cast("int", sweep.run_cap)
    points = math.prod(map(len, search.axes(sweep.parameters)))
    return min(points, sweep.run_cap) if sweep.run_cap is not None else points
