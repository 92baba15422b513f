"""Which running runs W&B's hyperband would stop: the rule of `sweeps` 0.3.0, exactly. Source: own (spec, section 4.1).

An iteration is a logged value of the metric, not a step: the evaluation at step 0 is iteration 1. Of every band (a number of
iterations) the best share of one in eta of all runs that got there goes on; a run is judged at the highest band it reached.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from meddiff.common.errors import UserError

#: As many bands as W&B makes from ``min_iter``; no run gets past the last.
MOST = 100


@dataclass(frozen=True)
class Course:
    """One run as hyperband sees it.

    Attributes:
        running: only such runs are stopped; the others count for the thresholds.
        values: of the metric in logging order; None and NaN were not measured and do not count.
    """

    running: bool
    values: Sequence[float | None]


@dataclass(frozen=True)
class Verdict:
    """Why a run is to stop: at ``band`` its ``value`` was beyond ``threshold`` (negated where more is better)."""

    run: int
    band: int
    value: float
    threshold: float


def bands_of(stop: Mapping[str, object]) -> list[int]:
    """Iterations at which runs are judged, ascending.

    Args:
        stop: ``early_terminate`` of the file.

    Raises:
        UserError: there is none.

    Example:
        >>> bands_of({"max_iter": 27, "s": 2, "eta": 3}), bands_of({"min_iter": 2, "eta": 1.5})[:5]
        ([3, 9], [2, 3, 4, 6, 10])
    """
    eta = cast("float", stop.get("eta", 3))
    if "max_iter" in stop:  # it wins over min_iter
        most = cast("int", stop["max_iter"])
        exact = [most / eta**place for place in range(1, int(cast("float", stop["s"])) + 1)]
        found = sorted(int(band) for band in exact if band >= 1)
    else:
        found = [int(cast("int", stop["min_iter"]) * eta**place) for place in range(MOST)]
    if not found:
        raise UserError("early_terminate: no band is left: raise max_iter or s, lower eta, or give min_iter instead.")
    return found


def verdicts(stop: Mapping[str, object], goal: str, courses: Sequence[Course]) -> list[Verdict]:
    """Runs to stop now.

    Args:
        stop: ``early_terminate`` of the file.
        goal: minimize or maximize.
        courses: of all runs of the sweep, whatever became of them.
    """
    bands, sign = bands_of(stop), -1.0 if goal == "maximize" else 1.0
    histories = [
        [sign * value for value in course.values if value is not None and math.isfinite(value)] for course in courses
    ]
    strict = stop.get("strict", True) is not False
    found = []
    for place, (course, history) in enumerate(zip(courses, histories, strict=True)):
        reached = [band for band in bands if band <= len(history)]
        if not course.running or not reached:
            continue
        band = reached[-1]
        value = history[band - 1] if strict else min(history)
        limit = threshold(stop, band, histories)
        if value > limit:
            found.append(Verdict(place, band, value, limit))
    return found


def threshold(stop: Mapping[str, object], band: int, histories: Sequence[Sequence[float]]) -> float:
    """The worst value with which a run passes ``band``; infinity where none got there."""
    there = sorted(history[band - 1] for history in histories if len(history) >= band)
    return there[int(1 / cast("float", stop.get("eta", 3)) * len(there))] if there else math.inf
