"""What the runs say in one sentence, no surer than they are. Source: own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meddiff.metrics.intervals import FEWEST, mean_interval
from meddiff.reports.page.derived import over_runs
from meddiff.reports.page.tables import Tables, Who
from meddiff.reports.page.wording import compact, direction, label, value_text
from meddiff.runs.folder import Run
from meddiff.runs.values import number


@dataclass(frozen=True)
class Claim:
    """A sentence, and what it rests on."""

    text: str
    basis: str


@dataclass(frozen=True)
class Gap:
    """Frozen minus learnable: its mean, its ends (None: not known), and whether the ends are an interval."""

    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether both ends lie on one side of 0."""
        return self.low is not None and self.high is not None and self.low * self.high > 0

    def text(self) -> str:
        """``0.42 [0.31, 0.53]``, by its size."""
        sign = -1.0 if self.mean < 0 else 1.0
        if self.low is None or self.high is None:
            return value_text(abs(self.mean))
        low, high = sorted((sign * self.low, sign * self.high))
        return f"{value_text(abs(self.mean))} [{value_text(low)}, {value_text(high)}]"


def claim(tables: Tables) -> Claim:
    """Frozen against learnable where both are there, else how far the runs came."""
    pairs = paired(tables)
    if pairs:
        return _comparison(tables, pairs)
    return _course(tables)


def paired(tables: Tables) -> list[tuple[Run, Run]]:
    """A frozen and a learnable run each that differ by nothing else: of one sweep, prompt, seed and kind."""
    sides: dict[str, dict[tuple[str, ...], Run]] = {"frozen": {}, "learnable": {}}
    for who, run in zip(tables.who, tables.found, strict=True):
        if who.encoder in sides:
            sides[who.encoder].setdefault(_twin(who), run)
    both = sides["frozen"].keys() & sides["learnable"].keys()
    return [(run, sides["learnable"][key]) for key, run in sides["frozen"].items() if key in both]


def _twin(who: Who) -> tuple[str, ...]:
    return who.sweep, who.prompt, str(who.seed), who.kind.removeprefix(who.encoder)


def _comparison(tables: Tables, pairs: Sequence[tuple[Run, Run]]) -> Claim:
    said, stops = [], []
    for key, better, worse in ((tables.distance, "better images by", "worse images by"),
                               (tables.cnr, "words point worse by", "words point better by")):  # fmt: skip
        found = [(one, *pair) for pair in pairs if (one := _common(*pair, key)) is not None]
        if not found:
            continue
        stops += [images for (images, _), _, _ in found]
        gap = _gap([difference for (_, difference), _, _ in found])
        if len(found) == 1 and key == tables.cnr:
            gap = _over_phrases(*found[0][1:], found[0][0][0], macro="macro" in key) or gap
        if gap.clear or (len(found) == 1 and gap.low is None and gap.mean):
            words = f"{better if gap.mean > 0 else worse} {gap.text()}"
        else:
            words = f"no clear difference in {'images' if direction(key) < 0 else 'where words point'}: {gap.text()}"
        said.append(f"{words} ({label(key)})")
    if not said:
        return Claim("Frozen and learnable have not been measured at the same number of images yet.", "")
    at = " to ".join(dict.fromkeys((f"{compact(min(stops))}", f"{compact(max(stops))}")))
    n = len(pairs)
    if n >= FEWEST:
        basis = f"Means over {n} pairs of runs that differ by it alone; in brackets the 95 % interval over pairs."
    elif n > 1:
        basis = f"Means over {n} pairs of runs; in brackets the least and the greatest: too few pairs for an interval."
    else:
        basis = "One pair of runs: another seed may differ by more than this. Brackets, if any: 95 % over the images measured."
    return Claim(f"Learnable against frozen: {', '.join(said)}.", f"After {at} images. {basis}")


def _common(frozen: Run, learnable: Run, key: str) -> tuple[int, float] | None:
    """The most images at which both have ``key``, and frozen minus learnable there."""
    one, other = ({e.images: value for e, value in run.series(key)} for run in (frozen, learnable))
    images = max(one.keys() & other.keys(), default=None)
    return None if images is None else (images, one[images] - other[images])


def _gap(values: Sequence[float]) -> Gap:
    return Gap(*over_runs(values)) if len(values) > 1 else Gap(values[0], None, None)


def _over_phrases(frozen: Run, learnable: Run, images: int, macro: bool) -> Gap | None:
    """The gap between two trained models on the phrases both were asked, with its interval over images."""
    rows = [
        {tuple(row.get(part, "") for part in ("key", "class", "phrase")): number(row.get("cnr")) for row in table}
        for table in (run.phrases_at(images) for run in (frozen, learnable))
    ]
    both = sorted(at for at in rows[0].keys() & rows[1].keys() if rows[0][at] is not None and rows[1][at] is not None)
    values = np.asarray([[float(rows[0][at] or 0.0) - float(rows[1][at] or 0.0) for at in both]])
    classes = [at[1] for at in both]
    low, high = mean_interval(values, [at[0] for at in both], classes if macro else None)
    if not math.isfinite(low):
        return None
    means = [values[0, [one == name for one in classes]].mean() for name in sorted(set(classes))]
    return Gap(float(np.mean(means) if macro else values.mean()), low, high)


def _course(tables: Tables) -> Claim:
    """How far the runs came, by text encoder, and what that must be read against."""
    said = []
    for encoder in dict.fromkeys(who.encoder for who in tables.who):
        runs = [run for who, run in zip(tables.who, tables.found, strict=True) if who.encoder == encoder]
        for key, words in ((tables.cnr, ("words point better", "words point worse", "words point")),
                           (tables.distance, ("images are better", "images are worse", "images"))):  # fmt: skip
            ends = [(series[0][1], series[-1][1]) for run in runs if (series := run.series(key))]
            if not ends:
                continue
            newest, low, high = over_runs([end for _, end in ends])
            first = math.fsum(start for start, _ in ends) / len(ends)
            gain = direction(key) * (newest - first)
            spread = f" [{value_text(low)}, {value_text(high)}]" if len(ends) > 1 else ""
            since = f" from {value_text(first)}" if gain else ""
            control = _control(runs, key)
            who = f"{encoder}: " if encoder != "other" else ""
            what = f"{who}{words[0 if gain > 0 else 1 if gain < 0 else 2]}, {label(key)} {value_text(newest)}{spread}"
            said.append(f"{what}{since}{control}")
    if not said:
        return Claim("Nothing has been evaluated yet.", "The first point is measured before training begins.")
    newest_images = max(run.evaluations[-1].images for run in tables.found if run.evaluations)
    few = "One run" if len(tables.found) == 1 else f"{len(tables.found)} runs"
    basis = f"{few}, up to {compact(newest_images)} images. What freezing costs shows beside a run that differs by it alone."
    text = "; ".join(said)
    return Claim(f"{text[0].upper()}{text[1:]}.", basis)


def _control(runs: Sequence[Run], key: str) -> str:
    """`` (location prior 0.72)``, of the first run that measured it."""
    room, _, name = key.partition("/")
    where, what = (room, "prior", name), "location prior"
    if room == "fidelity":
        where, what = (room, name, "real_vs_real"), "real against real"
    found = [value for run in runs if (value := run.control(*where)) is not None]
    return f" ({what} {value_text(found[0])})" if found else ""
