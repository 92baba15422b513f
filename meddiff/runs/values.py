"""What stands in the files of a run, taken as it comes: a report must not stop at a cell that is empty. Source: own."""

import math


def number(value: object) -> float | None:
    """A finite float, or None (empty cell, null, NaN, text).

    Example:
        >>> number("0.5"), number(3), number(""), number("nan"), number(True)
        (0.5, 3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        result = float(value)
    except (OverflowError, ValueError):
        return None
    return result if math.isfinite(result) else None


def nested(values: object, *names: str) -> object:
    """``values[names[0]][names[1]]...``, or None where there is nothing of that name.

    Example:
        >>> nested({"model": {"lr": 0.1}}, "model", "lr"), nested({"model": None}, "model", "lr")
        (0.1, None)
    """
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    return values
