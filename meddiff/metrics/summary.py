"""Averages of grounding scores as the paper's tables take them. No torch: reports read tables and need nothing else.

Source: spec/tradeoff.md, sections 0.6 and 8: the paper's own rows are means over samples (micro), the rows it compares
itself with are means of class means (macro).
"""

import math
from collections.abc import Iterable, Mapping, Sequence

#: What a row of a table may hold; None is undefined.
Score = str | float | None

#: What is measured of a sample, in the order in which `meddiff.metrics.GroundingScores` keeps it.
SCORES = ("cnr", "auroc", "top1", "miou")
#: What is averaged.
AVERAGES = ("cnr", "cnr_abs", "auroc", "top1", "miou")


def summarise(rows: Iterable[Mapping[str, Score]], extra: Sequence[str] = ()) -> dict[str, float]:
    """Averages of samples, over all (micro), over class means (macro) and by class.

    A sample without a defined CNR is left out of every average and counted, so that all columns speak of the same
    samples. Sums are exact, so the order of the rows, and with it the number of processes, does not matter.

    Args:
        rows: one mapping a sample with class, cnr, auroc, top1, miou; None counts as undefined (NaN in a JSON file).
        extra: further columns, say of `score_grid_maps`. Such a column may be undefined where the CNR is not (there is no
            distance to several boxes): it is averaged over those samples that have it, and ``NAME/n`` counts them.

    Returns:
        For each of cnr, cnr_abs, auroc, top1, miou: ``NAME`` (mean over samples, as the paper's own rows), ``macro_NAME``
        (mean of the means of those classes that have samples, as BioViL's) and ``CLASS/NAME``; the counts ``n``,
        ``CLASS/n`` and ``excluded``; for each extra column the same three, and ``NAME/n``. Averages of nothing are NaN.

    Example:
        >>> def row(name, cnr):
        ...     return {"class": name, "cnr": cnr, "auroc": 0.5, "top1": 1.0, "miou": 0.25}
        >>> scores = summarise([row("edema", 1.0), row("edema", 3.0), row("pneumonia", -1.0), row("edema", None)])
        >>> [scores[key] for key in ("cnr", "macro_cnr", "cnr_abs", "edema/cnr", "edema/n", "n", "excluded")]
        [1.0, 0.5, 1.6666666666666667, 2.0, 2.0, 3.0, 1.0]
    """
    classes: dict[str, list[dict[str, float]]] = {}
    excluded = 0
    for row in rows:
        kept = classes.setdefault(str(row["class"]), [])
        scores = {name: _number(row[name]) for name in (*SCORES, *extra)}
        if math.isfinite(scores["cnr"]):
            kept.append({**scores, "cnr_abs": abs(scores["cnr"])})
        else:
            excluded += 1
    samples = [sample for kept in classes.values() for sample in kept]
    filled = [kept for kept in classes.values() if kept]
    summary: dict[str, float] = {}
    for name in AVERAGES:
        summary[name] = _mean([sample[name] for sample in samples])
        summary[f"macro_{name}"] = _mean([_mean([sample[name] for sample in kept]) for kept in filled])
    for name in extra:
        means = [_mean(_defined(kept, name)) for kept in filled]
        summary[name] = _mean(_defined(samples, name))
        summary[f"macro_{name}"] = _mean([mean for mean in means if math.isfinite(mean)])
        summary[f"{name}/n"] = float(len(_defined(samples, name)))
    for label, kept in sorted(classes.items()):
        summary.update({f"{label}/{name}": _mean([sample[name] for sample in kept]) for name in AVERAGES})
        summary.update({f"{label}/{name}": _mean(_defined(kept, name)) for name in extra})
        summary[f"{label}/n"] = float(len(kept))
    return {**summary, "n": float(len(samples)), "excluded": float(excluded)}


def summarise_defined(rows: Iterable[Mapping[str, Score]]) -> dict[str, float]:
    """As :func:`summarise`, without what is undefined (JSON has no NaN)."""
    return {name: value for name, value in summarise(rows).items() if not math.isnan(value)}


def _number(score: Score) -> float:
    return math.nan if score is None else float(score)


def _defined(samples: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [sample[name] for sample in samples if math.isfinite(sample[name])]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
