"""An average that published tables of grounding take, and that is none. No torch: reports need nothing else.

Source: evaluation code of "Generate to ground" (formula restated).
"""

import math
from collections.abc import Sequence


def squared_counts_mean(values: Sequence[float], classes: Sequence[str]) -> float:
    """``sum n_c^2 m_c / sum n_c^2``, published as a "weighted average"; m_c is the mean of class c, n_c its samples.

    It weighs every row by the size of its class, so that a frequent class counts twice over: this is neither the mean over
    samples (:func:`~meddiff.metrics.statistics.micro_mean`) nor that over classes. For comparison with published rows only.

    Args:
        values: (N,), NaN where undefined: left out.
        classes: (N,) names.

    Returns:
        NaN where nothing is defined.

    Example:
        >>> round(squared_counts_mean([0.6] * 333 + [1.4] * 46, ["a"] * 333 + ["b"] * 46), 6)
        0.61498
    """
    found: dict[str, list[float]] = {}
    for value, name in zip(values, classes, strict=True):
        if math.isfinite(value):
            found.setdefault(name, []).append(value)
    weight = sum(len(some) ** 2 for some in found.values())
    return sum(len(some) * math.fsum(some) for some in found.values()) / weight if weight else math.nan
