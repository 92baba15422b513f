"""What a report derives from the tables of a run: counts, class means with intervals, changes. Source: own."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meddiff.metrics.intervals import mean_interval
from meddiff.reports.page.wording import parts, value_text
from meddiff.runs.folder import Run
from meddiff.runs.values import number


@dataclass(frozen=True)
class ClassRow:
    """Grounding of one class in one run: the newest CNR, its 95 % interval over images, where it started, the prior."""

    n: int
    value: float | None
    low: float | None
    high: float | None
    start: float | None
    prior: float | None

    def tip(self, name: str, run: str) -> str:
        """The tooltip of its bar."""
        lines = [f"{run}: {name}" + (f" (N = {self.n} phrases)" if self.n else ""), f"CNR: {value_text(self.value)}"]
        if self.low is not None:
            lines[-1] += f" (95 % interval {value_text(self.low)} to {value_text(self.high)})"
        lines += [f"first evaluation: {value_text(self.start)}", f"location prior: {value_text(self.prior)}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Change:
    """The newest value of a metric and where it started."""

    value: float
    images: int
    start: float | None
    start_images: int | None


def change(run: Run, key: str) -> Change | None:
    """Newest value of ``key`` and its first, or None if it was never measured."""
    series = run.series(key)
    if not series:
        return None
    (first, start), (last, value) = series[0], series[-1]
    if len(series) == 1:
        return Change(value, last.images, None, None)
    return Change(value, last.images, start, first.images)


def class_interval(run: Run, name: str) -> tuple[float, float, float] | None:
    """Mean CNR of a class in the newest table and its 95 % interval over images; None where there is no interval."""
    rows = [(row.get("key", ""), value) for row in run.phrases if row.get("class", "") == name
            and (value := number(row.get("cnr"))) is not None]  # fmt: skip
    values = np.asarray([[value for _, value in rows]])
    low, high = mean_interval(values, [key for key, _ in rows])
    return (float(values.mean()), low, high) if math.isfinite(low) else None


def scores(run: Run, name: str = "cnr") -> dict[str, list[float]]:
    """A column of the newest per-sample table, by class."""
    found: dict[str, list[float]] = {}
    for row in run.phrases:
        value = number(row.get(name))
        if value is not None:
            found.setdefault(row.get("class", ""), []).append(value)
    return found


def class_rows(run: Run) -> dict[str, ClassRow]:
    """Grounding of each class: the logged value where there is one, else the mean of the per-sample table."""
    table = scores(run)
    names = set(table)
    for evaluation in run.evaluations:
        names |= {match[1] for key in evaluation.values if (match := re.fullmatch(r"grounding/(.+)/cnr", key))}
    rows = {}
    for name in sorted(names):
        series = run.series(f"grounding/{name}/cnr")
        values = table.get(name, [])
        interval = class_interval(run, name)
        logged = series[-1][1] if series else None
        # The interval belongs to the newest table; a value from another evaluation must not borrow it.
        fits = interval is not None and (
            logged is None or math.isclose(logged, interval[0], rel_tol=1e-3, abs_tol=1e-3)
        )
        value = logged if logged is not None else (interval[0] if interval else (values[0] if values else None))
        rows[name] = ClassRow(
            len(values),
            value,
            interval[1] if interval and fits else None,
            interval[2] if interval and fits else None,
            series[0][1] if len(series) > 1 else None,
            run.control("grounding", "prior", f"{name}/cnr"),
        )
    return rows


def phrases_text(run: Run) -> str:
    """``312 phrases of 8 classes in 250 images``; "" if no table was written."""
    table = scores(run)
    if not table:
        return ""
    images = len({row.get("key") for row in run.phrases if number(row.get("cnr")) is not None})
    n = sum(len(values) for values in table.values())
    return f"{n:,} phrases of {len(table)} classes in {images:,} images"


def phrases_n(run: Run) -> int | None:
    """Number of phrases with a CNR in the newest per-sample table, else as logged."""
    series = run.series("grounding/n")
    return sum(len(values) for values in scores(run).values()) or (round(series[-1][1]) if series else None)


def asked_n(run: Run, name: str) -> int | None:
    """Number of measurements behind a grounding name: cells of its columns in the newest per-sample table."""
    prefix = {"own_beats_other": "other/", "confounder_cnr": "confounder/"}.get(name)
    place = parts(name)[2]
    column = f"{place}_cnr" if place else "cnr"
    cells = [
        cell
        for row in run.phrases
        for key, cell in row.items()
        if (key.startswith(prefix) if prefix else key == column)
    ]
    return sum(number(cell) is not None for cell in cells) or None


def fidelity_n(run: Run) -> int | None:
    """Number of images a distance was computed on."""
    series = run.series("fidelity/n")
    n = series[-1][1] if series else run.control("fidelity", "n")
    return None if n is None else round(n)


def one_n(counts: Sequence[int | None], unit: str) -> str:
    """``, N = 500 images`` for an axis: every N that occurs; "" if none is known."""
    known = sorted({n for n in counts if n})
    return f", N = {' / '.join(f'{n:,}' for n in known)} {unit}" if known else ""


def exclusions(run: Run) -> list[tuple[str, int]]:
    """Reasons for which samples were left out of grounding, the commonest first."""
    return Counter(row.get("reason", "") or "no reason given" for row in run.excluded).most_common()


def median(values: Sequence[float]) -> float | None:
    """The middle value."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 if ordered else None
