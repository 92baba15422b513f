"""Scores by the size of the lesion: strata, the correlation with size, and class means within a stratum.

Size and class are confounded (a large heart is always large), so that a mean over a stratum alone compares classes.
Bins: 2 and 8 % of the square image, about the quartiles of NIH's boxes. Source: own.
"""

import math
from collections.abc import Sequence

import numpy as np

#: Upper ends of the share of the image; the last has none.
STRATA = {"small": 0.02, "medium": 0.08, "large": math.inf}


def stratum(share: float) -> str:
    """``small`` below 2 % of the image, ``medium`` to 8 %, ``large`` above.

    Args:
        share: of the image that the union of the boxes covers.

    Example:
        >>> [stratum(share) for share in (0.0046, 0.02, 0.08, 0.0801)]
        ['small', 'medium', 'medium', 'large']
    """
    if share < STRATA["small"]:
        return "small"
    return "medium" if share <= STRATA["medium"] else "large"


def size_correlation(values: Sequence[float], shares: Sequence[float]) -> float:
    """Spearman's correlation of a score with the size of the lesion; NaN below three samples or where one side is constant.

    Example:
        >>> round(size_correlation([1.0, 3.0, 2.0], [0.01, 0.1, 0.2]), 6)
        0.5
    """
    from scipy.stats import rankdata

    known = [i for i, value in enumerate(values) if math.isfinite(value)]
    if len(known) < 3:
        return math.nan
    first, second = (rankdata([some[i] for i in known]) for some in (values, shares))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def by_size(values: Sequence[float], shares: Sequence[float], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Stratum -> ``mean``, ``n``, ``macro`` (mean of the means of its classes) and ``CLASS/mean``, ``CLASS/n`` within it.

    Args:
        values: scores; NaN is left out.
        shares: size of each lesion as a share of the image.
        classes: of each.

    Example:
        >>> found = by_size([1.0, 3.0, 5.0], [0.01, 0.01, 0.5], ["a", "b", "b"])
        >>> found["small"]["mean"], found["small"]["n"], found["large"]["b/mean"], found["medium"]["n"]
        (2.0, 2.0, 5.0, 0.0)
    """
    found = {}
    for name in STRATA:
        mine = [
            (v, c) for v, s, c in zip(values, shares, classes, strict=True) if stratum(s) == name and math.isfinite(v)
        ]
        of_class = {c: [v for v, other in mine if other == c] for c in sorted({c for _, c in mine})}
        means = {c: math.fsum(some) / len(some) for c, some in of_class.items()}
        row = {"mean": math.fsum(v for v, _ in mine) / len(mine) if mine else math.nan, "n": float(len(mine))}
        row["macro"] = math.fsum(means.values()) / len(means) if means else math.nan
        for c, some in of_class.items():
            row |= {f"{c}/mean": means[c], f"{c}/n": float(len(some))}
        found[name] = row
    return found
