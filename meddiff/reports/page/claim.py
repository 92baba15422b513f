"""What the runs say in one sentence, no surer than they are. Source: own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meddiff.metrics.intervals import FEWEST, mean_interval
from meddiff.reports.page.derived import over_runs
from meddiff.reports.page.sections import control, ends, spread
from meddiff.reports.page.tables import Tables
from meddiff.reports.page.wording import GAIN, compact, direction, label, value_text
from meddiff.runs.folder import Run
from meddiff.runs.values import number


@dataclass(frozen=True)
class Claim:
    """A sentence, and what it rests on."""

    text: str
    basis: str


#: frozen minus learnable: mean and ends, None where they are not known
Gap = tuple[float, float | None, float | None]


def _text(gap: Gap) -> str:
    """``0.42 [0.31, 0.53]``, by its size."""
    mean, *ends = gap
    low, high = sorted((-end if mean < 0 else end) for end in ends if end is not None) or (None, None)
    return value_text(abs(mean)) + ("" if low is None else f" [{value_text(low)}, {value_text(high)}]")


def claim(tables: Tables) -> Claim:
    """Frozen against learnable where both are there, else how far the runs came."""
    pairs = paired(tables)
    return _comparison(tables, pairs) if pairs else _course(tables)


def paired(tables: Tables) -> list[tuple[Run, Run]]:
    """A frozen and a learnable run each that differ by nothing else: of one sweep, prompt, seed and kind."""
    sides: dict[str, dict[tuple[str | int, ...], Run]] = {"frozen": {}, "learnable": {}}
    for who, run in zip(tables.who, tables.found, strict=True):
        twin = who.sweep, who.prompt, who.seed, who.kind.removeprefix(who.encoder)
        sides.get(who.encoder, {}).setdefault(twin, run)
    frozen, learnable = sides.values()
    return [(run, learnable[twin]) for twin, run in frozen.items() if twin in learnable]


def _comparison(tables: Tables, pairs: Sequence[tuple[Run, Run]]) -> Claim:
    said, stops = [], []
    for key, better, worse in ((tables.distance, "better images by", "worse images by"),
                               (GAIN, "less grounded by", "more grounded by"),
                               (tables.cnr, "words point worse by", "words point better by")):  # fmt: skip
        found = [(one, *pair) for pair in pairs if (one := _common(*pair, key)) is not None]
        if not found:
            continue
        stops += [images for (images, _), _, _ in found]
        values = [difference for (_, difference), _, _ in found]
        gap: Gap = over_runs(values) if len(found) > 1 else (values[0], None, None)
        if len(found) == 1 and key == tables.cnr:
            gap = _over_phrases(*found[0][1:], found[0][0][0], macro="macro" in key) or gap
        mean, low, high = gap
        words = f"{better if mean > 0 else worse} {_text(gap)}"
        if not mean or (low is not None and high is not None and low * high <= 0):
            words = f"no clear difference in {'images' if direction(key) < 0 else 'where words point'}: {_text(gap)}"
        said.append(f"{words} ({label(key)})")
    if not said:
        return Claim("Frozen and learnable have not been measured at the same number of images yet.", "")
    at = " to ".join(dict.fromkeys((f"{compact(min(stops))}", f"{compact(max(stops))}")))
    n = len(pairs)
    if n >= FEWEST:
        basis = f"Means over {n} pairs of runs that differ by the text encoder alone; in brackets the 95 % interval of that."
    elif n > 1:
        basis = f"Means over {n} pairs of runs; in brackets the least and the greatest: too few pairs for an interval."
    else:
        basis = "One pair of runs: another seed may differ by more than this."
        basis += " In brackets the 95 % interval over the images measured." if "[" in " ".join(said) else ""
    return Claim(f"Learnable against frozen: {', '.join(said)}.", f"After {at} images. {basis}")


def _common(frozen: Run, learnable: Run, key: str) -> tuple[int, float] | None:
    """The most images at which both have ``key``, and frozen minus learnable there; before training there is no difference."""
    one, other = ({e.images: value for e, value in run.series(key) if e.images} for run in (frozen, learnable))
    images = max(one.keys() & other.keys(), default=None)
    return None if images is None else (images, one[images] - other[images])


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
    return float(np.mean(means) if macro else values.mean()), low, high


def _course(tables: Tables) -> Claim:
    """How far the runs came, by text encoder, and what that must be read against."""
    said, told = [], ""
    for encoder in dict.fromkeys(who.encoder for who in tables.who):
        for key, what, way in (
            (GAIN, "words are grounded", 1),
            (tables.cnr, "words point", 1),
            (tables.distance, "images are", -1),
        ):
            first, newest = ends(tables, encoder, key)
            if not newest:
                continue
            start = math.fsum(first) / len(first) if first else None
            gain = 0.0 if start is None else way * (over_runs(newest)[0] - start)
            found = [value for run in tables.found if (value := control(run, key)[1]) is not None]
            whose = f"{encoder}: " if encoder not in ("other", told) else ""
            told = encoder
            text = f"{whose}{what}{' better' if gain > 0 else ' worse' if gain else ''}"
            text += f", {label(key)} {spread(newest)}" + (f" from {value_text(start)}" if gain else "")
            said.append(text + (f" ({control(tables.found[0], key)[0]} {value_text(found[0])})" if found else ""))
    if not said:
        return Claim("Nothing has been evaluated yet.", "The first point is measured before training begins.")
    newest_images = max(run.evaluations[-1].images for run in tables.found if run.evaluations)
    few = "One run" if len(tables.found) == 1 else f"{len(tables.found)} runs"
    basis = f"{few}, up to {compact(newest_images)} images. What freezing costs shows beside a run that differs by it alone."
    text = "; ".join(said)
    return Claim(f"{text[0].upper()}{text[1:]}.", basis)
