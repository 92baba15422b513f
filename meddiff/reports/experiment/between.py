"""Does what learning the encoder costs depend on the setting? That it shows in one and not in another does not say so: the two
costs are compared, seed by seed. Source: own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from meddiff.metrics.over_seeds import OverSeeds, over_seeds
from meddiff.metrics.statistics import holm
from meddiff.reports.experiment.claims import ARM, CNR, DISTANCE, LEVEL, SEEDS_OF_A_CLAIM, Arm, Claim
from meddiff.reports.experiment.tables import Design, amount, chance, interval, named, said

#: In what settings of the main table differ.
BY = ("train_images", "base", "weights")
TITLE = "### Does the cost depend on the setting?\n\n"


@dataclass(frozen=True)
class Between:
    """Learnable minus frozen in one setting, less the same in another that differs by one thing.

    Attributes:
        factor: in what they differ: one of :data:`meddiff.reports.experiment.claims.ARM`, or "rate".
        first: the setting that comes first in the table of claims.
        second: the other one.
        figure: name of the figure.
        of_first: learnable minus frozen in the first.
        of_second: in the second.
        difference: second less first, over the seeds that both have.
        p_holm: corrected over the table.
    """

    factor: str
    first: Arm
    second: Arm
    figure: str
    of_first: float
    of_second: float
    difference: OverSeeds
    p_holm: float = math.nan

    @property
    def holds(self) -> bool:
        """Whether the two costs are told apart at 5 % over the table."""
        return self.p_holm < LEVEL


def between(
    some: Sequence[Claim], figures: Sequence[str] = (CNR, DISTANCE), reference: Design | None = None
) -> list[Between]:
    """Every two settings of a table of claims that differ in one thing alone and have the seeds of a claim.

    Seeds are what varies here: both costs are measured on the same images.

    Args:
        reference: compare with its setting alone, as where one factor is varied.
    """
    found = []
    for figure in figures:
        for one, other in combinations([claim for claim in some if claim.figure == figure and claim.counts], 2):
            differ = [name for name in (*ARM, "rate") if one.arm.of(name) != other.arm.of(name)]
            if "rate" in differ and one.arm.follows and other.arm.follows:
                differ.remove("rate")  # the U-Net's own, whatever that is
            if len(differ) != 1 or differ[0] == "protocol":
                continue
            if reference is not None and reference.differs(one.arm) and reference.differs(other.arm):
                continue
            costs = [dict(zip(claim.seeds, claim.difference.by_seed, strict=True)) for claim in (one, other)]
            seeds = sorted(costs[0].keys() & costs[1].keys())
            if len(seeds) < SEEDS_OF_A_CLAIM:
                continue
            values = np.array([[cost[seed] for seed in seeds] for cost in costs])
            gap = over_seeds(values[1] - values[0])
            first, second = map(float, values.mean(axis=1))
            found.append(Between(differ[0], one.arm, other.arm, figure, first, second, gap))
    ps = holm([one.difference.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, ps, strict=True)]


def sides(one: Between, design: Design) -> tuple[str, str, str]:
    """What differs, on either side, and what both have in common."""
    ends = [said(one.factor, arm.of(one.factor), design) for arm in (one.first, one.second)]
    common = [said(name, one.first.of(name), design) for name in BY if name != one.factor]
    return ends[0], ends[1], ", ".join(common)


def markdown(found: Sequence[Between], design: Design) -> str:
    """The table and what it is of."""
    lines = [
        "Learnable − frozen in one setting and in another, and the second less the first, paired by seed, over seeds."
    ]
    lines += ["", "| from | to | both | figure | cost before | after | difference | p | p, Holm | seeds |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for one in found:
        bold = "**" if one.holds else ""
        cells = [*sides(one, design), named(one.figure)]
        cells += [amount(value, one.figure, sign=True) for value in (one.of_first, one.of_second)]
        cells += [f"{bold}{interval(one.difference, one.figure, sign=True)}{bold}"]
        cells += [chance(one.difference.p), chance(one.p_holm), str(one.difference.seeds)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
