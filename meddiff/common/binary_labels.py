"""Labels of tables as yes, no and unknown: CheXpert's 1, 0, -1 and blank, and what it takes to make two kinds of them.

CheXpert's labeller (Irvin et al., AAAI 2019) writes 1 for present, 0 for absent, -1 for uncertain and nothing where a finding
is not mentioned. The published code of Patronus takes the second of the sorted values for positive, which of {-1, 0, 1} is
the absent ones (spec/patronus_and_visual_analysis.md A11, 7). Source: own, and as named.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from meddiff.common.errors import UserError

#: What an uncertain label counts as.
Uncertain = Literal["positive", "negative", "ignored"]
#: What a blank counts as: not mentioned is often taken for absent.
Blank = Literal["negative", "ignored"]
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0, "": math.nan, "nan": math.nan, "none": math.nan}


def binarise(value: object, uncertain: Uncertain = "ignored", blank: Blank = "ignored") -> bool | None:
    """One cell of a table of labels.

    Args:
        value: 1, 0, -1, a truth value, a blank (None, NaN, an empty text), or one of these as text.
        uncertain: what -1 counts as.
        blank: what a blank counts as.

    Returns:
        None where it is not known.

    Raises:
        UserError: any other value.

    Example:
        >>> [binarise(value) for value in (1.0, "0.0", -1, "", float("nan"))]
        [True, False, None, None, None]
        >>> binarise(-1, uncertain="positive"), binarise("", blank="negative")
        (True, False)
    """
    number = _number(value)
    if math.isnan(number):
        return False if blank == "negative" else None
    if number == -1:
        return {"positive": True, "negative": False, "ignored": None}[uncertain]
    if number not in (0, 1):
        raise UserError(f"a label is {value!r}; 1 (present), 0 (absent), -1 (uncertain) or a blank is expected.")
    return number == 1


def _number(value: object) -> float:
    if value is None:
        return math.nan
    text = str(value).strip().lower()
    try:
        return _WORDS[text] if text in _WORDS else float(text)
    except ValueError:
        raise UserError(
            f"a label is {value!r}; 1 (present), 0 (absent), -1 (uncertain) or a blank is expected."
        ) from None


def binary_labels(
    rows: Iterable[Mapping[str, object]],
    names: Sequence[str],
    uncertain: Uncertain = "ignored",
    blank: Blank = "ignored",
) -> NDArray[np.float64]:
    """Columns of a table as numbers: (N, A) of 1, 0 and NaN for unknown; a column that a row lacks is a blank.

    Raises:
        UserError: as :func:`binarise`.

    Example:
        >>> binary_labels([{"Edema": -1}, {"Edema": 1}], ["Edema"], uncertain="negative").tolist()
        [[0.0], [1.0]]
    """
    cells = [[binarise(row.get(name), uncertain, blank) for name in names] for row in rows]
    return np.asarray([[math.nan if one is None else float(one) for one in row] for row in cells]).reshape(
        -1, len(names)
    )
