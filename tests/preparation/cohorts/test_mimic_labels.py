"""Labels of MIMIC-CXR out of the labelers' tables."""

import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.mimic_labels import labels_of
from tests.builders.mimic_cxr_tree import LABELS


def test_labels_follow_the_written_policy() -> None:
    assert labels_of({}) == ()
    assert labels_of({"Edema": "1.0", "No Finding": "1.0"}) == ("Edema",)
    assert labels_of({"Edema": "-1.0", "Pneumonia": "0.0"}) == ()
    assert labels_of({"Edema": "-1.0"}, uncertain="positive") == ("Edema",)
    assert labels_of({"No Finding": "1.0"}) == (NO_FINDING,)
    assert labels_of({"Fracture": "1.0"}) == labels_of({"Fracture": "1.0"}, unlabelled="no-finding") == ()
    assert labels_of({"Edema": "-1.0"}, unlabelled="no-finding") == (NO_FINDING,)
    assert labels_of({}, unlabelled="no-finding") == (NO_FINDING,)
    assert labels_of(dict.fromkeys(reversed(LABELS), "1.0")) == FINDINGS
    with pytest.raises(UserError, match=r"'2\.0' for Edema"):
        labels_of({"Edema": "2.0"})
