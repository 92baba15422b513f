"""Options of phantoms: bad ones are refused in one sentence."""

import pytest

from meddiff.common.errors import UserError
from meddiff.phantoms import PhantomOptions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confounders": ("laser:edema",)}, "laser"),
        ({"confounders": ("tube:measles",)}, "measles"),
        ({"confounders": ("tube:edema:1.5",)}, "-1 and 1"),
        ({"confounders": ("tube:edema:much",)}, "much"),
        ({"confounders": ("tube:edema", "tube:pneumonia")}, "once"),
        ({"resolution": 100}, "multiple of 8"),
        ({"n": 0}, "at least one"),
        ({"val": 3000}, "larger than n"),
        ({"text": "poetry"}, "poetry"),
        ({"shift": 2.0}, "between 0 and 1"),
        ({"domain": "source", "text": "open-i"}, "grammar"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as problem:
        PhantomOptions(**options)
    assert "\n" not in str(problem.value)
