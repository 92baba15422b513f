"""Which samples to train on so that a finding A and a confounder B agree as often as asked: P(B = A) = rho.

Samples are left out, never repeated: of each of the four kinds (both, A alone, B alone, neither) as many are kept as the
agreement needs, the first by a draw that hangs on (seed, key) alone, so that the sets of two agreements share what they can.
With balanced margins half of the samples have A and half have B at any rho, and phi is 2 rho - 1. A stamp is not chosen but
drawn onto the picture: there every rho has the very same images. Source: own; the set-up of spec C1.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from meddiff.common.binary_labels import Blank, Uncertain, binarise
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.shards.schema import SampleMetadata

Margins = Literal["balanced", "free"]
#: How far the agreement may be from what was asked for.
TOLERANCE = 0.02
#: Fewer samples than this are no set to train on, or to measure a shortcut on.
FEWEST = 20
#: (A, B) of the kinds, in the order of all counts here.
KINDS = ((True, True), (True, False), (False, True), (False, False))
Counts = tuple[int, int, int, int]


class Chosen(NamedTuple):
    """A set of samples.

    Attributes:
        keys: sorted.
        target, agreement: P(B = A) that was asked for, and that was reached.
        phi: correlation of A and B in the set; NaN where one does not vary.
        counts: of both, A alone, B alone, neither.
        available: likewise, of all samples that are known of both.
        unknown: samples of which A or B is not known; they are left out.
        stamped: of the keys those that get a stamp.
    """

    keys: tuple[str, ...]
    target: float
    agreement: float
    phi: float
    counts: Counts
    available: Counts
    unknown: int
    stamped: frozenset[str] = frozenset()


def phi(counts: Counts) -> float:
    """Correlation of two attributes out of the counts of both, A alone, B alone, neither.

    Example:
        >>> phi((3, 1, 1, 3))
        0.5
    """
    both, a, b, neither = counts
    product = (both + a) * (both + b) * (a + neither) * (b + neither)
    return (both * neither - a * b) / math.sqrt(product) if product else math.nan


def is_column(rows: Iterable[SampleMetadata], name: str) -> bool:
    """Whether something is a column of the table that samples of ``prepare folder`` came from; its blanks are not stored."""
    return any(name in row["attributes"].get("table", ()) for row in rows)


def has(
    metadata: SampleMetadata,
    name: str,
    uncertain: Uncertain = "ignored",
    blank: Blank = "ignored",
    column: bool = False,
) -> bool | None:
    """Whether a sample carries something: a label, a confounder of a phantom, or what says yes or no in an attribute or column.

    Args:
        uncertain, blank: what -1 and a blank count as.
        column: it is one of the table (:func:`is_column`).

    Returns:
        None where it is not known.

    Raises:
        UserError: an attribute or column that says something else than yes or no.
    """
    attributes = metadata["attributes"]
    if column:
        return binarise(attributes.get("table", {}).get(name), uncertain, blank)
    if name in attributes and name not in metadata["labels"]:
        return binarise(attributes[name], uncertain, blank)
    return name in metadata["labels"] or name in attributes.get("confounders", ())


def wanted(rho: float, size: int, available: Counts, margins: Margins) -> Counts | None:
    """How many of each kind ``size`` samples need; None where there are not as many.

    Example:
        >>> wanted(0.75, 8, (9, 9, 9, 9), "balanced")
        (3, 1, 1, 3)
    """
    agree = round(rho * size)
    both, neither = _halves(agree, available[0], available[3], margins)
    a, b = _halves(size - agree, available[1], available[2], margins)
    counts = (
        (both, b, a, neither) if agree % 2 else (both, a, b, neither)
    )  # odd halves of the one meet those of the other
    return counts if all(have >= need >= 0 for have, need in zip(available, counts, strict=True)) else None


def _halves(number: int, first: int, second: int, margins: Margins) -> tuple[int, int]:
    """Of two kinds that stand for the same, how many of each: half and half, or in proportion to what there is."""
    if margins == "balanced" or not first + second:
        return number - number // 2, number // 2
    mine = min(first, max(number - second, round(number * first / (first + second))))
    return mine, number - mine


def largest(rho: float, available: Counts, margins: Margins) -> int:
    """The largest set of this agreement; 0 where there is none."""
    most = sum(available)
    if margins == "balanced":
        most = min(2 * min(available[0], available[3]) / rho if rho else most, most)  # type: ignore[assignment]
        most = min(2 * min(available[1], available[2]) / (1 - rho) if rho < 1 else most, most)  # type: ignore[assignment]
    else:
        most = min((available[0] + available[3]) / rho if rho else most, most)  # type: ignore[assignment]
        most = min((available[1] + available[2]) / (1 - rho) if rho < 1 else most, most)  # type: ignore[assignment]
    sizes = range(min(int(most + 1e-9), sum(available)), 0, -1)  # roundings and odd halves may take one more of a kind
    return next((size for size in sizes if _reached(rho, size, available, margins)), 0)


def _reached(rho: float, size: int, available: Counts, margins: Margins) -> bool:
    counts = wanted(rho, size, available, margins)
    return counts is not None and abs((counts[0] + counts[3]) / size - rho) <= TOLERANCE


def reachable(size: int, available: Counts, margins: Margins) -> tuple[float, float] | None:
    """Lowest and highest agreement of ``size`` samples; None where there are none."""
    found = [agree / size for agree in range(size + 1) if wanted(agree / size, size, available, margins)]
    return (min(found), max(found)) if found else None


def choose(
    pairs: Mapping[str, tuple[bool | None, bool | None]],
    rho: float,
    size: int | None = None,
    margins: Margins = "balanced",
    others: Iterable[float] = (),
    seed: int = 0,
) -> Chosen:
    """Choose samples.

    Args:
        pairs: key -> A and B; None where one is not known.
        rho: P(B = A) in the set.
        size: of the set; None: the largest that ``rho`` and all of ``others`` allow.
        margins: balanced: half of the set has A, and half has B; free: as they are, which allows larger sets.
        others: agreements that sets of the same size are wanted for.
        seed: of the draws.

    Raises:
        UserError: it cannot be reached, with what can.

    Example:
        >>> pairs = {f"{i:03d}": (i % 2 == 0, i % 3 == 0) for i in range(120)}
        >>> found = choose(pairs, 0.75)
        >>> len(found.keys), found.agreement, round(found.phi, 2)
        (53, 0.7547169811320755, 0.51)
    """
    kinds: dict[tuple[bool, bool], list[str]] = {kind: [] for kind in KINDS}
    unknown = 0
    for key, (a, b) in pairs.items():
        if a is None or b is None:
            unknown += 1
        else:
            kinds[a, b].append(key)
    available = _four(len(kinds[kind]) for kind in KINDS)
    _check(rho, size, [*others])
    number = size if size is not None else min(largest(one, available, margins) for one in (rho, *others))
    while size is None and number >= FEWEST and not _reached(rho, number, available, margins):
        number -= 1
    if number < FEWEST or not _reached(rho, number, available, margins):
        raise UserError(_refusal(rho, size, available, margins))
    counts = wanted(rho, number, available, margins)
    assert counts is not None
    keys = [key for kind, count in zip(KINDS, counts, strict=True) for key in _first(kinds[kind], count, seed)]
    agreement = (counts[0] + counts[3]) / number
    return Chosen(tuple(sorted(keys)), rho, agreement, phi(counts), counts, available, unknown)


def choose_stamped(findings: Mapping[str, bool | None], rho: float, size: int | None = None, seed: int = 0) -> Chosen:
    """Choose samples, half of them with A, and which of them get a stamp, B: a share ``rho`` of those with A and of those
    without it 1 - rho. The samples are the same at every rho.

    Args:
        findings: key -> A.
        size: of the set; None: the largest.

    Raises:
        UserError: there are fewer.
    """
    _check(rho, size, [])
    sides = [[key for key, there in findings.items() if there is side] for side in (True, False)]
    unknown = sum(there is None for there in findings.values())
    half = min(map(len, sides)) if size is None else size // 2
    if half > min(map(len, sides)) or 2 * half < FEWEST:
        raise UserError(
            f"{len(sides[0])} samples have the finding and {len(sides[1])} do not: a set of "
            f"{'at least ' + str(FEWEST) if size is None else size}, half and half, cannot be chosen; ask for at most "
            f"{2 * min(map(len, sides))} of another finding or cohort."
        )
    with_stamp = (round(rho * half), half - round(rho * half))
    chosen = [_first(side, half, seed) for side in sides]
    stamped = [key for side, n in zip(chosen, with_stamp, strict=True) for key in _first(side, n, seed, "stamp")]
    counts = (with_stamp[0], half - with_stamp[0], with_stamp[1], half - with_stamp[1])
    agreement = (counts[0] + counts[3]) / (2 * half)
    if abs(agreement - rho) > TOLERANCE:
        raise UserError(f"{2 * half} samples can have an agreement of {agreement:.3f} and not of {rho}: ask for that.")
    available = (len(sides[0]), 0, 0, len(sides[1]))
    keys = tuple(sorted([*chosen[0], *chosen[1]]))
    return Chosen(keys, rho, agreement, phi(counts), counts, available, unknown, frozenset(stamped))


def _first(keys: Iterable[str], count: int, seed: int, purpose: str = "shortcut") -> list[str]:
    return sorted(keys, key=lambda key: (generator(seed, purpose, key).random(), key))[:count]


def _four(numbers: Iterable[int]) -> Counts:
    both, a, b, neither = numbers
    return both, a, b, neither


def _check(rho: float, size: int | None, others: list[float]) -> None:
    for one in (rho, *others):
        if not 0 <= one <= 1:
            raise UserError(f"an agreement is {one}: give a number from 0 (never alike) over 0.5 to 1 (always alike).")
    if size is not None and size < FEWEST:
        raise UserError(f"a set of {size} samples is asked for: give {FEWEST} or more.")


def _refusal(rho: float, size: int | None, available: Counts, margins: Margins) -> str:
    number = FEWEST if size is None else size
    ends = reachable(number, available, margins)
    can = f"from {ends[0]:.2f} to {ends[1]:.2f}" if ends else "nothing"
    have = ", ".join(
        f"{n} {what}" for n, what in zip(available, ("both", "A alone", "B alone", "neither"), strict=True)
    )
    more = " or margins: free" if margins == "balanced" else ""
    least = "at least " if size is None else ""
    return (
        f"an agreement of {rho} cannot be had within {TOLERANCE} of {least}{number} samples with {margins} margins (of finding "
        f"A and confounder B there are {have}): they reach {can}; ask for that, another size{more}."
    )
