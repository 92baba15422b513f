"""Which labels and confounders each phantom of a cohort gets. Source: own.

Labels are drawn for every index on its own. Confounders are dealt out over a whole split by quota: drawing them one
by one would make the measured correlation wander by about 1/sqrt(n) around the dial, dealing keeps it within
rounding. In the grounding and fidelity splits the correlation is always 0.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.common.findings import FINDINGS
from meddiff.phantoms.openi import RealReport, Reports, read_reports
from meddiff.phantoms.options import SPLITS, PhantomOptions

#: Weights of the first finding of an abnormal phantom, about equal so that every class is learnt.
FIRST = dict(zip(FINDINGS, (1.0, 1.0, 1.0, 0.9, 1.15, 0.8, 1.1, 1.3), strict=True))
#: How much more likely than by weight a second finding is, given the first: heart failure, and lungs that collapse.
COMPANIONS = {
    ("Cardiomegaly", "Edema"): 2.5,
    ("Cardiomegaly", "Pleural Effusion"): 2.0,
    ("Edema", "Pleural Effusion"): 2.5,
    ("Atelectasis", "Pleural Effusion"): 2.5,
    ("Atelectasis", "Pneumothorax"): 1.5,
    ("Consolidation", "Pleural Effusion"): 1.5,
    ("Lung Opacity", "Pneumonia"): 0.5,
    ("Consolidation", "Pneumonia"): 0.5,
    ("Consolidation", "Lung Opacity"): 0.5,
    ("Edema", "Pneumothorax"): 0.4,
}


#: A class with fewer usable real impressions than this is written by the grammar, also under text="open-i".
ENOUGH = 20


@dataclass(frozen=True)
class Plan:
    """Labels (sorted, empty for a healthy one), confounders and real report (None: grammar) of every index."""

    labels: tuple[tuple[str, ...], ...]
    confounders: tuple[tuple[str, ...], ...]
    reports: tuple[RealReport | None, ...]


@lru_cache(maxsize=8)
def plan_for(options: PhantomOptions) -> Plan:
    """The plan of a cohort; equal options give the same (cached) plan."""
    step = 2 if options.mirrored_pairs else 1
    drawn = [draw_labels(options, index // step) for index in range(options.n)]
    reports: list[RealReport | None] = [None] * options.n
    if options.text == "open-i":
        pool = read_reports()
        reports = [draw_report(options, index // step, labels, pool) for index, labels in enumerate(drawn)]
    # a real impression brings its own findings
    labels = [report.labels if report else own for report, own in zip(reports, drawn, strict=True)]
    names: list[list[str]] = [[] for _ in labels]
    start = 0
    for split in SPLITS:
        size = options.sizes()[split]
        for name, finding, dial in options.parsed_confounders():
            has = np.array([finding in labels[start + k] for k in range(0, size, step)], bool)
            # twins of a mirrored pair share their confounders as they share the patient
            present = deal(has, dial, split, generator(options.seed, "confounder", name, split)).repeat(step)[:size]
            for k in np.flatnonzero(present):
                names[start + int(k)].append(name)
        start += size
    return Plan(tuple(labels), tuple(tuple(one) for one in names), tuple(reports))


def draw_labels(options: PhantomOptions, index: int) -> tuple[str, ...]:
    """Labels of one phantom, sorted; () for "No Finding"."""
    rng = generator(options.seed, "labels", index)
    if rng.uniform() < options.normal:
        return ()
    chosen = [FINDINGS[int(rng.choice(len(FINDINGS), p=_normalised(np.array([FIRST[f] for f in FINDINGS]))))]]
    count = 1
    if rng.uniform() < options.multiple:
        count = 3 if rng.uniform() < 0.25 else 2
    while len(chosen) < count:
        weights = np.array([0.0 if f in chosen else FIRST[f] * _company(f, chosen) for f in FINDINGS])
        chosen.append(FINDINGS[int(rng.choice(len(FINDINGS), p=_normalised(weights)))])
    return tuple(sorted(chosen))


def draw_report(options: PhantomOptions, index: int, labels: tuple[str, ...], reports: Reports) -> RealReport | None:
    """A real impression for drawn labels: one that shares their rarest class and whether there are several.

    None where that class has too few (:data:`ENOUGH`) or none fits: the grammar writes that phantom.
    """
    rng = generator(options.seed, "report", index)
    if not labels:
        return reports.normal[int(rng.integers(len(reports.normal)))]
    known = {label: sum(label in report.labels for report in reports.abnormal) for label in labels}
    rarest = min(labels, key=lambda label: (known[label], label))
    if known[rarest] < ENOUGH:
        return None
    several = len(labels) > 1
    fitting = [report for report in reports.abnormal if rarest in report.labels and (len(report.labels) > 1) == several]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _company(label: str, others: list[str]) -> float:
    return float(np.prod([COMPANIONS.get((min(label, o), max(label, o)), 1.0) for o in others]))


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def deal(has: NDArray[np.bool_], dial: float, split: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Presence of a confounder in one split, with phi coefficient ``dial`` to the finding (0 in balanced splits).

    The confounder is as frequent as the finding itself (for a negative dial as the finding is absent), the only
    frequency at which every correlation can be reached. The grounding split shows it in half of the phantoms, so
    that finding with and without confounder can be compared; the fidelity split keeps the frequency of train.

    Args:
        has: bool (n,), whether each phantom of the split has the finding.
        dial: wanted phi coefficient, -1..1.
        split: name of the split.
        rng: deals who gets it.
    """
    n, k = len(has), int(has.sum())
    if n == 0:
        return np.zeros(0, bool)
    share = k / n if dial >= 0 else 1 - k / n
    if split == "grounding":
        share = 0.5
    if split in ("grounding", "fidelity"):
        dial = 0.0
    both = k / n * share + dial * np.sqrt(k / n * (1 - k / n) * share * (1 - share))
    among_with = int(np.clip(round(both * n), 0, k))
    among_without = int(np.clip(round(share * n) - among_with, 0, n - k))
    present = np.zeros(n, bool)
    present[rng.permutation(np.flatnonzero(has))[:among_with]] = True
    present[rng.permutation(np.flatnonzero(~has))[:among_without]] = True
    return present
