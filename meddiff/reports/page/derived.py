"""What tables are made of: columns, means over runs with their ends, counts behind a figure. Source: own."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from meddiff.common.outside import terminal
from meddiff.metrics.intervals import FEWEST, mean_interval
from meddiff.reports.page.wording import GAIN, QUESTIONS, parts
from meddiff.runs.folder import Run
from meddiff.runs.values import number

Value = float | int | str | None
Row = dict[str, Value]
Columns = dict[str, list[Value]]


def columns(rows: Iterable[Mapping[str, Value]]) -> Columns:
    """Rows as columns; what a row lacks is None, what is not finite as well, and texts are made safe to show.

    Example:
        >>> columns([{"a": 1}, {"b": float("nan"), "a": "x"}])
        {'a': [1, 'x'], 'b': [None, None]}
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_plain(row.get(name)) for row in rows] for name in names}


def rows_of(table: Columns) -> list[Row]:
    """The way back."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def aliased(table: Columns, fields: Mapping[str, str]) -> list[Row]:
    """Rows in which each figure that is looked at also goes by the name that a chart knows, with its ends.

    Example:
        >>> aliased({"a": [1], "a low": [0]}, {"value": "a"})
        [{'a': 1, 'a low': 0, 'value': 1, 'value_low': 0}]
    """
    ends = {"": "", "_low": " low", "_high": " high"}
    found = {
        f"{name}{a}": table[f"{key}{b}"]
        for name, key in fields.items()
        for a, b in ends.items()
        if f"{key}{b}" in table
    }
    return rows_of({name: cells for name, cells in table.items() if name not in fields} | found)


def _plain(value: Value) -> Value:
    if isinstance(value, str):
        return terminal(value, newlines=True)
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def flat(config: object, prefix: str = "") -> dict[str, object]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists as they are."""
    if not isinstance(config, dict):
        return {prefix: config}
    found: dict[str, object] = {}
    for key, value in config.items():
        found.update(flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return found


def pooled(table: Columns, by: str) -> Columns:
    """One row an encoder, prompt and ``by``: mean CNR over runs with its ends; of a single run its own interval over images."""
    gathered: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows_of(table):
        if row["cnr"] is not None:
            gathered.setdefault((row["encoder"], row["prompt"], row[by]), []).append(row)
    prompts = {prompt for _, prompt, _ in gathered}
    rows = []
    for (encoder, prompt, what), found in gathered.items():
        cnr, low, high = over_runs([float(row["cnr"] or 0.0) for row in found])
        if len(found) == 1:
            low, high = found[0].get("low"), found[0].get("high")  # type: ignore[assignment]
        priors = [value for row in found if isinstance(value := row.get("prior"), float)]
        counts = [value for row in found if isinstance(value := row.get("n"), int)]
        arm = f"{encoder}, {prompt}" if len(prompts) > 1 and by != "prompt" else str(encoder)
        rows.append(
            {"encoder": encoder, "prompt": prompt, "arm": arm, "what": what, "order": str(what), "runs": len(found)}
            | {"cnr": cnr, "low": low, "high": high, "n": max(counts, default=None)}
            | {"prior": math.fsum(priors) / len(priors) if priors else None}
        )
    return columns(rows)


def mean_of(cells: Sequence[tuple[str, float]]) -> Row:
    """Mean CNR, and its interval over images."""
    values = np.asarray([[value for _, value in cells]])
    low, high = mean_interval(values, [key for key, _ in cells])
    return {"cnr": float(values.mean()), "low": low, "high": high}


def over_runs(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over runs; 95 % interval from five on, else least and greatest."""
    ends = (min(values), max(values))
    if len(values) >= FEWEST:
        found = mean_interval(np.asarray([values]), range(len(values)))
        ends = found if math.isfinite(found[0]) else ends
    return math.fsum(values) / len(values), *ends


def seed_means(found: Iterable[tuple[Row, int, Mapping[str, float]]], keys: Sequence[str]) -> list[Row]:
    """One row a kind and number of images: mean over runs that differ by their seed alone, ``KEY low`` and ``KEY high``.

    Only where all seeds that got that far are there.

    Args:
        found: who (with its ``kind``), images, values.
        keys: of the values.
    """
    gathered: dict[Value, dict[int, list[Mapping[str, float]]]] = {}
    whose: dict[Value, Row] = {}
    for who, images, values in found:
        gathered.setdefault(who["kind"], {}).setdefault(images, []).append(values)
        whose[who["kind"]] = who
    rows = []
    for kind, at in gathered.items():
        most = max(len(some) for some in at.values())
        for images, some in sorted(at.items()):
            if len(some) < max(2, most):
                continue
            row: Row = {**whose[kind], "run": f"mean of {len(some)} seeds", "images": images, "n": len(some)}
            for key in keys:
                defined = [values[key] for values in some if key in values]
                if len(defined) == len(some):
                    row |= dict(zip((key, f"{key} low", f"{key} high"), over_runs(defined), strict=True))
            rows.append(row)
    return rows


def reduced(points: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """Means of equally long stretches, ``limit`` at most.

    Example:
        >>> reduced([(0, 1.0), (2, 3.0), (4, 5.0)], 2)
        [(1.0, 2.0), (4.0, 5.0)]
    """
    size = math.ceil(len(points) / limit) or 1
    stretches = [points[i : i + size] for i in range(0, len(points), size)]
    return [(math.fsum(a for a, _ in one) / len(one), math.fsum(b for _, b in one) / len(one)) for one in stretches]


def class_rows(run: Run) -> list[Row]:
    """Grounding of each class: the logged value where there is one, else the mean of the per-sample table."""
    table: dict[str, list[tuple[str, float]]] = {}
    for row in run.phrases:
        if (value := number(row.get("cnr"))) is not None:
            table.setdefault(row.get("class", ""), []).append((row.get("key", ""), value))
    logged = {
        match[1] for e in run.evaluations for key in e.values if (match := re.fullmatch(r"grounding/(.+)/cnr", key))
    }
    rows = []
    for name in sorted(logged | set(table)):
        series, cells = run.series(f"grounding/{name}/cnr"), table.get(name, [])
        mean: Row = mean_of(cells) if cells else {"cnr": None, "low": None, "high": None}
        newest = series[-1][1] if series else None
        if newest is not None and not math.isclose(newest, float(mean["cnr"] or 0.0), rel_tol=1e-3, abs_tol=1e-3):
            # The interval belongs to the newest table; a value from another evaluation must not borrow it.
            mean = {"cnr": newest, "low": None, "high": None}
        start = series[0][1] if len(series) > 1 else None
        prior = run.control("grounding", "prior", f"{name}/cnr")
        rows.append({"class": name, "n": len(cells)} | mean | {"start": start, "prior": prior})
    return rows


def phrases_n(run: Run) -> int | None:
    """Number of phrases with a CNR in the newest per-sample table, else as logged."""
    series = run.series("grounding/n")
    n = sum(number(row.get("cnr")) is not None for row in run.phrases)
    return n or (round(series[-1][1]) if series else None)


def asked_n(run: Run, name: str) -> int | None:
    """Number of measurements behind a grounding name: cells of its columns in the newest per-sample table."""
    prefix = {"own_beats_other": "other/", "confounder_cnr": "confounder/"}.get(name)
    place = parts(name)[2]
    if name not in QUESTIONS and not place:
        return phrases_n(run)
    column = f"{place}_cnr" if place else "cnr"
    cells = [v for row in run.phrases for k, v in row.items() if (k.startswith(prefix) if prefix else k == column)]
    return sum(number(cell) is not None for cell in cells) or None


def grounding_gains(runs: Sequence[Run]) -> list[float | None]:
    """Grounding gain of each run: under all controls if that was measured of every run, else of its newest evaluation."""
    found = [run.control("grounding", "gain", "least", "gain") for run in runs]
    return [series[-1][1] if (series := run.series(GAIN)) else None for run in runs] if None in found else found


def fidelity_n(run: Run) -> int | None:
    """Number of images a distance was computed on."""
    series = run.series("fidelity/n")
    n = series[-1][1] if series else run.control("fidelity", "n")
    return None if n is None else round(n)


def exclusions(run: Run) -> list[tuple[str, int]]:
    """Reasons for which samples were left out of grounding, the commonest first."""
    return Counter(row.get("reason", "") or "no reason given" for row in run.excluded).most_common()
