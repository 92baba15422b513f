"""What learning the text encoder changes, setting by setting: learnable minus frozen, paired by seed. No torch.

An arm is what a setting was trained with but for the encoder; of an arm, frozen and learnable runs of one seed make a pair.
Claims of one table are corrected together (Holm); what has fewer pairs than a claim needs stands beside them.
Source: own; the comparisons: :mod:`meddiff.metrics.over_seeds`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from meddiff.common.errors import UserError
from meddiff.metrics.over_seeds import OverSeeds, common_distance, over_seeds, paired, score_at
from meddiff.metrics.statistics import Floats, holm
from meddiff.reports.experiment.rows import BETWEEN, Collected, Row
from meddiff.runs.values import number

DISTANCE, CNR = "fidelity/fd_domain", "grounding/macro_cnr"
AT_EQUAL = "grounding/macro_cnr at equal distance"
#: What makes an arm; the first of them is how long it was trained.
ARM = ("train_images", "base", "weights", "prompt", "confounders", "protocol")
#: Figure -> the score of a phrase that it is the mean of class means of.
OF_PHRASES = {
    CNR: "cnr",
    "grounding/macro_auroc": "auroc",
    "grounding/macro_top1": "top1",
    "grounding/eos_macro_cnr": "eos_cnr",
}
#: Runs of one arm begin with the same weights, so their distances before training differ by rounding alone.
SAME_START = 0.02
LEVEL = 0.05
#: On fewer pairs than this a figure is shown and nothing is claimed of it.
SEEDS_OF_A_CLAIM = 5


@dataclass(frozen=True)
class Arm:
    """One setting with its encoder: frozen, or learnable at a rate.

    Attributes:
        setting: values of :data:`ARM`.
        rate: of the text encoder, 0 where it is frozen.
        follows: whether that is the U-Net's own rate; false where it is frozen.
    """

    setting: tuple[str, ...]
    rate: float
    follows: bool

    def of(self, name: str) -> str:
        """One value of the setting, or the rate."""
        return f"{self.rate:g}" if name == "rate" else self.setting[ARM.index(name)]


@dataclass(frozen=True)
class Claim:
    """One figure of one arm against the frozen runs of the same setting.

    Attributes:
        arm: the learnable one.
        figure: name of the figure.
        frozen: mean over seeds and its interval.
        learnable: the same.
        difference: learnable minus frozen, paired.
        seeds: those of the pairs that have the figure, as ``difference.by_seed`` has their values.
        samples: number of images with findings that it is over; 0 of a figure that a run has once.
        distance: at which Frechet distance, where that is held equal.
        p_holm: corrected over the claims of the table; NaN on too few seeds for a claim.
        note: why there is no number, in a sentence.
    """

    arm: Arm
    figure: str
    frozen: OverSeeds
    learnable: OverSeeds
    difference: OverSeeds
    seeds: tuple[int, ...] = ()
    samples: int = 0
    distance: float = math.nan
    p_holm: float = math.nan
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference is told from none at 5 % over the claims of its table."""
        return self.p_holm < LEVEL

    @property
    def counts(self) -> bool:
        """Whether it rests on enough seeds to be a claim."""
        return self.difference.seeds >= SEEDS_OF_A_CLAIM


def arms(collected: Collected) -> dict[Arm, dict[int, str]]:
    """Arm -> seed -> run. Of two runs of one arm and seed the first by name counts.

    Raises:
        UserError: runs of one arm that began with other weights than the others.
    """
    found: dict[Arm, dict[int, str]] = {}
    for (run, _), row in sorted(collected.runs.items()):
        rate, unet = number(row.get("rate")) or 0.0, number(row.get("unet_rate")) or 0.0
        arm = Arm(tuple(row.get(name, "") for name in ARM), rate, rate > 0 and math.isclose(rate, unet))
        found.setdefault(arm, {}).setdefault(int(number(row.get("seed")) or 0), run)
    by_setting: dict[tuple[str, ...], dict[str, float]] = {}
    for arm, runs in found.items():
        for run in runs.values():
            start = number(collected.runs.get((run, 0), {}).get(DISTANCE))
            if start is not None:
                by_setting.setdefault(arm.setting, {})[run] = start
    for starts in by_setting.values():
        least, most = min(starts, key=lambda run: starts[run]), max(starts, key=lambda run: starts[run])
        if starts[most] > (1 + SAME_START) * starts[least]:
            raise UserError(
                f"{least} and {most} have the same settings and began with different weights (Frechet distance "
                f"{starts[least]:.4g} and {starts[most]:.4g} before training): take the older one's rows out."
            )
    return found


def claims(collected: Collected, figures: Sequence[str]) -> list[Claim]:
    """Every figure of every learnable arm whose setting has frozen runs of the same seeds; not yet corrected."""
    found = arms(collected)
    result = []
    for arm, learnable in found.items():
        frozen = found.get(Arm(arm.setting, 0.0, False), {}) if arm.rate else {}
        seeds = sorted(frozen.keys() & learnable.keys())
        if not seeds:
            continue
        pairs = {seed: (frozen[seed], learnable[seed]) for seed in seeds}
        result += [one for figure in figures if (one := _claim(collected, arm, pairs, figure)) is not None]
    return sorted(result, key=lambda one: (_order(one.arm), figures.index(one.figure)))


def corrected(some: Sequence[Claim]) -> list[Claim]:
    """The claims of one table with their p corrected over those that rest on enough seeds."""
    ps = holm([one.difference.p if one.counts else math.nan for one in some])
    return [replace(one, p_holm=p) for one, p in zip(some, ps, strict=True)]


def _order(arm: Arm) -> tuple[float, tuple[str, ...], float]:
    return (number(arm.setting[0]) or 0.0, arm.setting[1:], arm.rate)


def _claim(collected: Collected, arm: Arm, pairs: Mapping[int, tuple[str, str]], figure: str) -> Claim | None:
    """None where no pair has the figure."""
    address = ("experiment", *arm.setting, arm.rate, figure)
    if figure == AT_EQUAL:
        return _at_equal(collected, arm, pairs)
    if figure in OF_PHRASES:
        tables = [[collected.phrases.get((run, OF_PHRASES[figure]), {}) for run in pair] for pair in pairs.values()]
        samples = sorted(set.union(*(set(table) for pair in tables for table in pair)))
        if samples:
            first, second = (_table([pair[side] for pair in tables], samples) for side in (0, 1))
            images, classes = (list(part) for part in zip(*(one.split(BETWEEN, 1) for one in samples), strict=True))
            gaps = paired(second, first)
            frozen, learnable, gap = (over_seeds(one, images, classes, address) for one in (first, second, gaps))
            seeds = tuple(seed for seed, row in zip(pairs, gaps, strict=True) if np.isfinite(row).any())
            return Claim(arm, figure, frozen, learnable, gap, seeds, len(samples))
    last = int(arm.of("train_images"))
    values = [[_value(collected.runs.get((run, last), {}), figure) for run in pair] for pair in pairs.values()]
    return _of_runs(arm, figure, list(pairs), np.array(values))


def _table(rows: Sequence[Mapping[str, float]], samples: Sequence[str]) -> Floats:
    return np.array([[row.get(sample, math.nan) for sample in samples] for row in rows])


def _value(row: Row, figure: str) -> float:
    value = number(row.get(figure))
    return math.nan if value is None else value


def _of_runs(arm: Arm, figure: str, seeds: Sequence[int], values: Floats, distance: float = math.nan) -> Claim | None:
    """Of a figure that a run has once; values (pairs, 2)."""
    known = np.isfinite(values).all(axis=1)
    if not known.any():
        return None
    frozen, learnable = values[known].T
    parts = over_seeds(frozen), over_seeds(learnable), over_seeds(paired(learnable, frozen))
    return Claim(arm, figure, *parts, tuple(np.asarray(seeds)[known].tolist()), distance=distance)


def _at_equal(collected: Collected, arm: Arm, pairs: Mapping[int, tuple[str, str]]) -> Claim:
    """CNR where all runs of both arms have come down to the same distance."""
    curves = [[curve(collected, run) for run in pair] for pair in pairs.values()]
    level = common_distance([one for pair in curves for one in pair])
    values = np.array([[score_at(one, level) for one in pair] for pair in curves])
    found = _of_runs(arm, AT_EQUAL, list(pairs), values, level)
    if found is not None:
        return found
    nothing = over_seeds(np.array([math.nan]))
    return Claim(arm, AT_EQUAL, nothing, nothing, nothing, note="their Frechet distances have no value in common")


def curve(collected: Collected, run: str) -> list[tuple[float, float]]:
    """(Frechet distance, CNR) of each evaluation of a run, in the order of training."""
    rows = [row for (name, _), row in sorted(collected.runs.items()) if name == run]
    points = [(_value(row, DISTANCE), _value(row, CNR)) for row in rows]
    return [point for point in points if all(map(math.isfinite, point))]
