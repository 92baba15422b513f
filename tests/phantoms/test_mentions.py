"""What an impression says word by word, against the scene it was written for."""

import re

import pytest

from meddiff.common.findings import FINDINGS
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.mentions import mentions

DENIAL = re.compile(
    r"\b(?:no|without|negative for|not|normal|clear|limits|sharp|free|small|or|unremarkable|intact)\b", re.I
)


def cohort(domain: str, text: str = "grammar") -> PhantomCohort:
    return PhantomCohort(PhantomOptions(n=300, seed=77, domain=domain, text=text, outlines="own", boxes="own"))


@pytest.mark.parametrize("domain", ["chest", "source"])
def test_every_finding_is_named_with_what_the_scene_has(domain: str) -> None:
    made, denied = cohort(domain), 0
    for index in range(len(made)):
        text, findings = made.caption(index)
        found = mentions(text, findings, domain)
        assert set(findings) <= {one.label for one in found if not one.denied}, text
        assert [one.start for one in found] == sorted(one.start for one in found)
        for one in found:
            assert one.denied == (one.label not in findings)
            assert (one.side, one.severity) == (
                ("", "") if one.denied else (findings[one.label]["side"], findings[one.label]["severity"])
            )
            if one.denied:  # the words say so, too: a denial or a normal part stands in the same sentence
                sentence = text[: one.start].split(". ")[-1] + text[one.start :].split(". ")[0]
                assert DENIAL.search(sentence), (text, one)
                denied += 1
    assert denied > 50


def test_a_side_and_a_severity_that_are_read_are_those_of_the_mention() -> None:
    made, right, wrong = cohort("chest"), 0, 0
    for index in range(len(made)):
        text, findings = made.caption(index)
        found = [one for one in mentions(text, findings) if not one.denied]
        if len(found) == 1 and found[0].side in ("left", "right"):
            right += found[0].side in text.lower() or (found[0].side == "left" and "lingula" in text.lower())
            wrong += {"left": "right", "right": "left"}[found[0].side] in text.lower()
    assert right > 20
    assert wrong == 0


def test_reports_of_open_i_are_read_by_their_headings() -> None:
    made = cohort("chest", "open-i")
    for index in range(60):
        text, findings = made.caption(index)
        assert all(one.denied == (one.label not in findings) for one in mentions(text, findings))


def test_nothing_is_found_where_nothing_is_named() -> None:
    assert mentions("", {}) == ()
    assert mentions("The trachea is midline. A visible pleural line.", {}) == ()
    assert {one.label for one in mentions("bar, square, fog", {}, "source")} == {
        "Atelectasis",
        "Consolidation",
        "Edema",
    }
    assert {one.label for one in mentions(" ".join(FINDINGS), {})} == set(FINDINGS)
