"""Labels of {-1, 0, 1, blank, NaN} as yes, no and unknown; the published way takes the absent ones for positive."""

import math

import numpy as np
import pytest

from meddiff.common.binary_labels import Uncertain, binarise, binary_labels
from meddiff.common.errors import UserError

COLUMN: list[object] = [-1, 0, 1, 1, 0, -1, None, math.nan, ""]
TRUTH = [None, False, True, True, False, None, None, None, None]


def as_published(column: list[object]) -> list[bool]:
    """Formula of the published code: positive is what equals the second of the sorted values."""
    second = sorted({value for value in column if value in (-1, 0, 1)})[1]  # type: ignore[type-var]
    return [value == second for value in column]


def test_the_published_way_takes_the_absent_for_positive_and_this_one_does_not() -> None:
    published = as_published(COLUMN)
    assert [value for value, positive in zip(COLUMN, published, strict=True) if positive] == [0, 0]
    found = [binarise(value) for value in COLUMN]
    assert found == TRUTH
    assert not any(one and wrong for one, wrong in zip(found, published, strict=True))
    # on a column without uncertain ones the two agree, which is why it went unseen
    plain: list[object] = [0, 1, 1, 0]
    assert as_published(plain) == [binarise(value) for value in plain]


@pytest.mark.parametrize(("policy", "minus"), [("positive", True), ("negative", False), ("ignored", None)])
def test_policies_of_the_uncertain(policy: Uncertain, minus: bool | None) -> None:
    assert [binarise(value, policy) for value in COLUMN] == [
        minus if value == -1 else t for value, t in zip(COLUMN, TRUTH, strict=True)
    ]
    assert binarise("-1.0", policy) is minus
    assert binarise(None, policy) is None


def test_blanks_may_count_as_absent_and_never_as_present() -> None:
    assert [binarise(value, blank="negative") for value in (None, math.nan, "", "nan", -1)] == [False] * 4 + [None]


@pytest.mark.parametrize("value", [True, np.True_, 1, 1.0, np.float32(1), "1", " 1.0 ", "yes", "TRUE"])
def test_every_spelling_of_present(value: object) -> None:
    assert binarise(value) is True


@pytest.mark.parametrize("value", [2, 0.5, "maybe", -2, math.inf])
def test_anything_else_is_told(value: object) -> None:
    with pytest.raises(UserError, match="1 \\(present\\), 0 \\(absent\\), -1"):
        binarise(value)


def test_a_table_has_nan_where_nothing_is_known() -> None:
    rows = [{"Edema": 1, "PM": "0.0"}, {"Edema": -1}, {}]
    found = binary_labels(rows, ["Edema", "PM"])
    assert np.array_equal(found, [[1, 0], [np.nan, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert np.array_equal(binary_labels(rows, ["Edema", "PM"], "positive", "negative"), [[1, 0], [1, 0], [0, 0]])
    assert binary_labels([], ["Edema"]).shape == (0, 1)
