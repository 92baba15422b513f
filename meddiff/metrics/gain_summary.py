"""What of a score cannot be had without grounding: means of gains, their intervals, and the least of them.

The gain under a control is the mean, over askings, of the asked word's CNR less the CNR under the control
(:func:`meddiff.metrics.functional.grounding_gain`). A control catches an artefact when the artefact scores as much under it; no
control catches all, so the headline is the **least** of the gains in size, and 0 where they disagree in sign (what numerical
analysis calls minmod): what is left is shown by every control, and is not had by any artefact that one of them catches, also by
none that keeps maps *away* from findings. The score itself counts as one of them: a map that only knows the side loses on the
other side what it has on its own, and is worth one of the two.

Means are over askings (micro): a map that answers every word alike gives A's word on B's mask what it takes from B's word on
A's, which cancels only where both weigh the same. Askings of one image (or pair of images) are not independent, images are.
The interval of the least is made of all intervals in the same way. Where the ends of several count, as the upper ends do of a
gain above 0, they are of a level that is divided among all (Bonferroni), so it covers at least as often as it says. No torch:
reports read tables and need nothing else. Source: own.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from meddiff.metrics.intervals import FEWEST, LEVEL, NONE, dyad_interval, mean_interval
from meddiff.metrics.statistics import Floats

#: Controls of a gain, in the order in which they are printed.
GAIN_CONTROLS = ("absent", "other_finding", "twin", "other_patient", "mirrored_box")
#: What the row of the least gain is called.
LEAST = "least"
#: Columns of a row of gains.
GAIN_COLUMNS = ("control", "gain", "low", "high", "cnr", "control_cnr", "n", "images")
#: Means that differ by less are rounding.
ROUNDING = 1e-9


class Asking(NamedTuple):
    """A word that was asked for, and its control.

    Attributes:
        control: one of :data:`GAIN_CONTROLS`.
        image: number or name of the image.
        partner: of the other image, where the control has one (the twin, the other patient); else the same.
        asked: CNR of the word's map where it should lie.
        under_control: CNR under the control.
    """

    control: str
    image: str | int
    partner: str | int
    asked: float
    under_control: float


def gain_rows(askings: Iterable[Asking]) -> list[dict[str, str | float]]:
    """The least gain, then one row a control that has askings: :data:`GAIN_COLUMNS`, NaN where there is no interval.

    ``cnr`` and ``control_cnr`` are the two means, ``n`` counts askings with both, ``images`` images. Without askings: no rows.

    Example:
        >>> askings = [Asking("absent", image, image, 1.0 + image % 2, 0.25) for image in range(8)]
        >>> [(row["control"], row["gain"], round(row["low"], 2), row["n"]) for row in gain_rows(askings)]
        [('least', 1.25, 0.8, 8.0), ('absent', 1.25, 0.8, 8.0)]
    """
    found: dict[str, list[Asking]] = {}
    for one in askings:
        if math.isfinite(one.asked) and math.isfinite(one.under_control):
            found.setdefault(one.control, []).append(one)
    order = {name: place for place, name in enumerate(GAIN_CONTROLS)}
    rows: list[dict[str, str | float]] = []
    means: list[float] = []
    ends: dict[float, list[tuple[float, float]]] = {LEVEL: [], 1 - (1 - LEVEL) / (2 * max(1, len(found))): []}
    for control, some in sorted(found.items(), key=lambda item: order.get(item[0], len(order))):
        asked, under = (np.array([one[place] for one in some]) for place in (3, 4))
        for values in (asked, asked - under):
            means.append(float(values.mean()))
            for level, intervals in ends.items():
                intervals.append(_interval(values, some, level))
        images = {one.image for one in some} | {one.partner for one in some}
        cells = (float(asked.mean()), float(under.mean()), float(len(some)), float(len(images)))
        row = (control, means[-1], *ends[LEVEL][-1], *cells)
        rows.append(dict(zip(GAIN_COLUMNS, row, strict=True)))
    if not rows:
        return []
    of = rows[min(range(len(rows)), key=lambda place: abs(float(rows[place]["gain"])))]
    least: dict[str, str | float] = {"control": LEAST, "gain": nearest_zero(means)}
    least |= dict(zip(("low", "high"), _ends_of_the_least(*ends.values()), strict=True))
    return [least | {name: of[name] for name in GAIN_COLUMNS[4:]}, *rows]


def nearest_zero(values: Sequence[float]) -> float:
    """The one of least size if all have one sign, else 0.

    Example:
        >>> nearest_zero([0.5, 0.2, 1.0]), nearest_zero([-0.5, -0.2]), nearest_zero([0.5, -0.2, 1.0])
        (0.2, -0.2, 0.0)
    """
    low, high = min(values), max(values)
    return low if low > 0 else high if high < 0 else 0.0


def _ends_of_the_least(
    single: Sequence[tuple[float, float]], divided: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Interval of :func:`nearest_zero`, which grows with each of its arguments, from those of the arguments.

    Args:
        single: at the level itself: on the far side of 0 the one that is least in truth must fail.
        divided: at a level divided by the number of ends: towards 0 and beyond any of them may fail.
    """
    if not all(math.isfinite(end) for ends in (*single, *divided) for end in ends):
        return NONE
    low, high = (nearest_zero([ends[side] for ends in single]) for side in (0, 1))
    low = low if low > 0 else nearest_zero([ends[0] for ends in divided])
    high = high if high < 0 else nearest_zero([ends[1] for ends in divided])
    return low, high


def gain_figures(rows: Sequence[dict[str, str | float]]) -> dict[str, float]:
    """Rows of :func:`gain_rows` under the names that are logged: ``gain``, ``gain_low``, ``gain_high``, ``gain_CONTROL``.

    Ends that are not known are left out.
    """
    found: dict[str, float] = {}
    for row in rows:
        if row["control"] == LEAST:
            found |= {
                name: float(row[end]) for name, end in (("gain", "gain"), ("gain_low", "low"), ("gain_high", "high"))
            }
        else:
            found[f"gain_{row['control']}"] = float(row["gain"])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _interval(values: Floats, askings: Sequence[Asking], level: float) -> tuple[float, float]:
    """Of a mean over askings: by image, or by pairs of images; a mean of equal values has itself for both ends."""
    images, partners = [one.image for one in askings], [one.partner for one in askings]
    if np.ptp(values) < ROUNDING and len(set(images)) >= FEWEST:
        return float(values.mean()), float(values.mean())
    if images == partners:
        return mean_interval(values[None], images, level=level)
    if any(image == partner for image, partner in zip(images, partners, strict=True)):
        return NONE
    return dyad_interval(values, images, partners, level)
