"""Impressions out of reports. All reports here are made up; none is from a patient or a data set."""

import textwrap

import numpy as np
import pytest

from meddiff.common.draws import generator
from meddiff.preparation.reports_text import (
    PAPER,
    Impression,
    TextRules,
    cut_notification,
    drop_masked,
    find_impression,
)

BANNER = "                                 FINAL REPORT\n"
RULE = " " + "_" * 78 + "\n"

PLAIN = (
    BANNER
    + """ EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old man with cough  // infection?

 COMPARISON:  ___

 FINDINGS:

 Lungs are clear. RIGHT LUNG: normal. Heart is not enlarged.

 IMPRESSION:

 No pneumonia. Small left-
 sided effusion, unchanged
 since ___.
"""
)


def text_of(report: str, **rules: str) -> str:
    return find_impression(report, TextRules(**rules)).text  # type: ignore[arg-type]


def test_line_breaks_are_blanks_and_a_hyphen_at_the_end_of_a_line_joins() -> None:
    assert find_impression(PLAIN) == Impression(
        "No pneumonia. Small left-sided effusion, unchanged since ___.", "heading"
    )


def test_the_published_rule_glues_the_words() -> None:
    text = find_impression(PLAIN, PAPER)
    assert text == Impression("No pneumonia. Small left- sided effusion, unchanged since ___.", "paper")
    assert find_impression("IMPRESSION: no\nfocal\nopacity\n", PAPER).text == "nofocalopacity"


def test_the_published_rule_wants_the_literal_heading_exactly_once() -> None:
    assert find_impression("Impression: clear lungs", PAPER).text == ""
    assert find_impression("IMPRESSION: one\nIMPRESSION: two", PAPER).text == ""
    assert find_impression("FINDINGS AND IMPRESSION: clear lungs", PAPER).text == "clear lungs"
    # what follows under other headings is kept, as it was
    report = "IMPRESSION: Edema.\n NOTIFICATION: Told Dr. ___"
    assert find_impression(report, PAPER).text == "Edema. NOTIFICATION: Told Dr. ___"


@pytest.mark.parametrize(
    "heading",
    [
        "IMPRESSION:", "Impression:", "IMPRESSIONS:", "IMPRESSION :", "IMPRESSION\n", "  IMPRESSION:", "CONCLUSION:",
        "Conclusions:", "FINDINGS AND IMPRESSION:", "FINDINGS/IMPRESSION:", "FINDINGS & IMPRESSION:", "FINAL IMPRESSION:",
        "IMPRESSION AND RECOMMENDATIONS:", "IMPRESSION AND RECOMMENDATION(S):", "IMPRESSION (PRELIMINARY):",
        "Findings and impression:", "SUMMARY:",
    ],
)  # fmt: skip
def test_headings_that_begin_an_impression(heading: str) -> None:
    assert text_of(f"{BANNER} INDICATION: Pain.\n\n{heading} Mild edema.\n") == "Mild edema."


@pytest.mark.parametrize("report", [
    "COMPARISON: None.  IMPRESSION: Mild edema.",
    " HISTORY: cough. FINDINGS AND IMPRESSION: Mild edema.",
])  # fmt: skip
def test_a_heading_in_capitals_counts_inside_a_line(report: str) -> None:
    assert text_of(report) == "Mild edema."


@pytest.mark.parametrize("report", [
    "The impression: of an old fracture is unchanged.",
    "FINDINGS: Clinical impression of pneumonia.",
    "INDICATION: Impression of a mass on the prior film.",
    "FINDINGS: impression on the trachea by a goiter.",
    "", "\n\n", "   ",
])  # fmt: skip
def test_the_word_in_a_sentence_is_no_heading(report: str) -> None:
    assert find_impression(report) == Impression("", "no heading")


@pytest.mark.parametrize("ender", [
    "RECOMMENDATION(S):", "RECOMMENDATIONS:", "NOTIFICATION:", "FINDINGS:", "COMPARISON:", "TECHNIQUE:", "Findings:",
    "CLINICAL HISTORY:", "REASON FOR EXAM:", "EXAMINATION:",
])  # fmt: skip
def test_the_next_heading_ends_it(ender: str) -> None:
    assert text_of(f"IMPRESSION:\n 1. Edema.\n 2. Effusion.\n\n {ender} Something else.") == "1. Edema. 2. Effusion."


def test_anatomy_with_a_colon_ends_nothing() -> None:
    assert text_of("IMPRESSION:\n PICC: tip in the SVC.\n LUNGS: clear.") == "PICC: tip in the SVC. LUNGS: clear."


def test_of_several_impressions_the_last_or_all() -> None:
    first, second = "IMPRESSION: First study: edema.", "IMPRESSION: Second study: clear."
    report = f"{BANNER} {first}\n\n COMPARISON: ___\n\n {second}\n\n IMPRESSION:\n"
    assert find_impression(report) == Impression("Second study: clear.", "several headings")
    assert text_of(report, several="joined") == "First study: edema. Second study: clear."


def test_an_empty_impression_is_said_to_be_empty() -> None:
    assert find_impression("FINDINGS: Edema.\n IMPRESSION:\n\n") == Impression("", "empty")


def test_addenda_and_wet_reads_are_not_the_report() -> None:
    report = (
        f"{' ' * 33}FINAL ADDENDUM\n ADDENDUM:  IMPRESSION: Left and right were exchanged.\n\n{RULE}\n"
        f"{BANNER} WET READ: ___ ___ 9:30 PM\n IMPRESSION: no pneumothorax\n{RULE}\n"
        " CHEST RADIOGRAPH\n\n IMPRESSION: Small pneumothorax.\n\n ADDENDUM  Told to ___.\n"
    )
    assert find_impression(report) == Impression("Small pneumothorax.", "heading")


def test_an_addendum_speaks_where_the_report_has_no_impression() -> None:
    report = f"{' ' * 33}FINAL ADDENDUM\n IMPRESSION: Rib fracture seen later.\n{RULE}{BANNER} FINDINGS: Clear.\n"
    assert find_impression(report) == Impression("Rib fracture seen later.", "addendum")
    assert find_impression("WET READ: ___\n IMPRESSION: clear\n") == Impression("", "no heading")


def test_a_banner_in_the_middle_ends_an_impression() -> None:
    assert text_of(f"IMPRESSION: Edema.\n{RULE}\n Dictated for Dr. ___") == "Edema."
    assert text_of("IMPRESSION: Edema.\n\n FINAL REPORT\n Signed.") == "Edema."


def test_masked_words_stay_unless_dropped() -> None:
    report = "IMPRESSION: Compared to ___, edema (___) is gone; Dr. ___, ___ agrees. Normal chest x-XXXX."
    assert "___" in text_of(report)
    assert text_of(report, masked="drop") == "Compared to, edema is gone; Dr. agrees. Normal chest x-ray."
    assert drop_masked("Dilated aorta of .5 cm XXXX XXXX . XXXX, stable.") == "Dilated aorta of .5 cm. stable."
    assert text_of("IMPRESSION: ___", masked="drop") == ""


@pytest.mark.parametrize("told", [
    "Findings were discussed with Dr. ___ by telephone at 9:41 AM on ___.",
    "These findings were communicated to the ED dashboard.",
    "Dr. ___ was notified by ___ via telephone at 14:02.",
    "Updated results were conveyed by telephone to Dr. ___ at the time of discovery.",
    "The above was entered into the dashboard by ___ at 11:20 on ___ for direct communication.",
])  # fmt: skip
def test_notifications_are_cut_on_demand(told: str) -> None:
    report = f"IMPRESSION:\n 1. Large pneumothorax.\n 2. Line in place.\n\n 3. {told} Thank you."
    assert text_of(report, notification="cut") == "1. Large pneumothorax. 2. Line in place."
    assert "Thank you." in text_of(report)


def test_nothing_but_a_notification_leaves_nothing() -> None:
    report = "IMPRESSION: Findings were discussed with Dr. ___ by telephone at 9:41 AM."
    assert find_impression(report, TextRules(notification="cut")) == Impression("", "notification only")


@pytest.mark.parametrize("text", [
    "Edema was discussed in the prior report.", "Heart called normal.", "No change reported.", "The pathology entered.",
])  # fmt: skip
def test_findings_are_not_taken_for_notifications(text: str) -> None:
    assert cut_notification(text) == text


def test_without_a_heading_the_last_paragraph_on_demand() -> None:
    findings = "FINDINGS: Old text.\n\n Heart size is normal.\n Lungs are\n clear."
    report = f"{BANNER} INDICATION: Fever.\n\n {findings}\n\n COMPARISON: None.\n"
    assert find_impression(report) == Impression("", "no heading")
    found = find_impression(report, TextRules(no_heading="last-paragraph"))
    assert found == Impression("Heart size is normal. Lungs are clear.", "last paragraph")
    assert text_of("FINDINGS:\n Clear lungs.\n", no_heading="last-paragraph") == "Clear lungs."
    assert text_of("INDICATION: Fever.\n\n TECHNIQUE: PA.\n", no_heading="last-paragraph") == ""


def test_windows_line_ends_change_nothing() -> None:
    assert find_impression(PLAIN.replace("\n", "\r\n")) == find_impression(PLAIN)


WORDS = [
    "no", "edema", "mild", "left", "effusion", "opacity", "stable", "clear", "lungs", "___", "2.5", "cm", "unchanged,",
    "small", "right;", "apical", "normal.",
]  # fmt: skip


def made_up(rng: np.random.Generator) -> tuple[str, str]:
    """A random report and the impression in it: words, wrapped anywhere, between headings and banners."""
    words = [str(word) for word in rng.choice(WORDS, int(rng.integers(1, 60)))]
    margin = " " * int(rng.integers(0, 4))
    body = textwrap.fill(" ".join(words), int(rng.integers(20, 90)), initial_indent=margin, subsequent_indent=margin)
    before = [
        BANNER,
        " INDICATION: Fever.\n",
        "\n FINDINGS: Some.\n\n",
        RULE,
        " TECHNIQUE: AP\n",
        " COMPARISON: ___.\n",
    ]
    after = [
        "",
        "\n",
        "\n RECOMMENDATION(S): Again.\n",
        f"\n{RULE} Signed",
        "\n ADDENDUM: More.\n",
        "\n NOTIFICATION: ___\n",
    ]
    head = "".join(str(one) for one in rng.choice(before, int(rng.integers(0, 5))))
    heading = str(rng.choice(["IMPRESSION:", "Impression:", "CONCLUSION:", "FINDINGS AND IMPRESSION:"]))
    gap = str(rng.choice([" ", "\n", "\n\n", "\n \n"]))
    return f"{head} {heading}{gap}{body}{rng.choice(after)}", " ".join(words)


def test_property_whatever_the_wrapping_the_words_come_back() -> None:
    for index in range(500):
        report, words = made_up(generator(7, "reports", index))
        assert find_impression(report).text == words, report


def test_property_every_rule_gives_one_clean_line_and_is_idempotent() -> None:
    for index in range(300):
        rng = generator(8, "noise", index)
        pieces = ["IMPRESSION:", "\n", "\n\n", "FINAL REPORT\n", RULE, "___", "Dr. ___ was paged.", "FINDINGS:", *WORDS]
        report = " ".join(str(piece) for piece in rng.choice(pieces, 40))
        for several in ("last", "joined"):
            for masked in ("keep", "drop"):
                text = text_of(report, several=several, masked=masked, notification="cut", no_heading="last-paragraph")
                assert text == " ".join(text.split())
                assert text in {"", find_impression(f"IMPRESSION: {text}", TextRules(masked=masked)).text}


def test_reading_a_long_report_takes_no_time() -> None:
    # patterns that backtrack would take minutes here
    report = " " * 20000 + "FINDINGS " * 4000 + "_" * 20000 + "\n" + " IMPRESSION" * 3000 + ": x\n" + "a " * 20000
    assert find_impression(report, TextRules(notification="cut", masked="drop")).origin


@pytest.mark.parametrize("text", ["___", "____.", "None.", "No report available.", "N/A", "-", "\u200b"])
def test_an_impression_that_says_nothing_is_none(text: str) -> None:
    assert find_impression(f"FINDINGS: Clear lungs.\nIMPRESSION: {text}\n") == Impression("", "empty")
