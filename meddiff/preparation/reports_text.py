"""The impression out of a free-text radiology report. Source: own; :data:`PAPER` is the published code's rule.

How a report is read:

1. Lines that are banners ("FINAL REPORT", "ADDENDUM", "WET READ ...", rules of underscores) cut it into parts. Addenda
   and wet reads are not the report: their headings count only where the rest has none (wet reads never).
2. An impression begins at IMPRESSION, FINDINGS AND IMPRESSION (either order), CONCLUSION or SUMMARY and ends at the next
   known heading, banner or the end. Headings stand at the start of a line in capitals or with a capital first letter,
   with a colon, or alone on their line in capitals; ``IMPRESSION:`` in capitals counts inside a line too.
3. Several impressions: the last one that is not empty, or all of them joined (:attr:`TextRules.several`).
4. An impression of masks alone ("___.") or of words such as "None." or "No report." is none.
5. Line breaks and runs of blanks become one blank; a word broken at its hyphen is put together ("left-\\nsided").
"""

import re
from dataclasses import dataclass
from typing import Literal

from meddiff.preparation.cells import says_nothing

_NAMES = r"IMPRESSIONS?|CONCLUSIONS?|SUMMARY"
_START = (
    rf"(?:(?:FINDINGS?|FINAL|PRELIMINARY)\s*(?:AND|&|/|,)?\s*)?(?:{_NAMES})"
    r"(?:\s*(?:AND|&|/|,)\s*(?:FINDINGS?|RECOMMENDATIONS?|PLAN))?"
)
#: What ends an impression. Anatomy ("RIGHT LUNG:") does not.
_OTHER = (
    r"(?:TYPE OF )?EXAM(?:INATION)?S?|(?:CLINICAL |PATIENT )?(?:HISTORY|INDICATIONS?|INFORMATION|DATA)|"
    r"REASON FOR (?:EXAM(?:INATION)?|STUDY|THIS EXAM(?:INATION)?)|TECHNIQUE|PROCEDURES?|STUDY|VIEWS?|COMPARISONS?|"
    r"COMPARISON STUDY|(?:PRELIMINARY |PROVISIONAL |RADIOGRAPHIC )?FINDINGS?|RECOMMENDATIONS?(?:\(S\))?|"
    r"NOTIFICATIONS?|COMMUNICATION|DISCUSSION|ATTESTATION|SIGNED|DICTATED BY"
)
_BANNER = re.compile(
    r"^[ \t]*(?:(?P<rule>_{20,})|[_=*-]{5,}|(?P<name>(?:FINAL|PRELIMINARY|INTERIM|UNAPPROVED)[ \t]+(?:REPORT|ADDENDUM)|"
    r"(?:ADDENDUM|WET READ)|(?:Addendum|Wet [Rr]ead)(?=[ \t]*:))(?![A-Za-z])[ \t]*(?P<rest>[^\n]*))[ \t]*$",
    re.M,
)
_SPECIAL = re.compile(r"ADDENDUM|WET READ", re.I)


def _title(pattern: str) -> str:
    """The same words in capitals, or with a capital first letter and the rest in any case."""
    return rf"(?=[A-Z])(?i:{pattern})"


_HEADING = re.compile(
    rf"^[ \t]*(?:(?P<start>{_title(_START)})|{_title(_OTHER)})[ \t]*(?:\([^)\n]{{0,20}}\))?[ \t]*:"
    rf"|^[ \t]*(?:(?P<bare>{_START})|(?:{_OTHER}))[ \t]*$"
    rf"|(?<=\s)(?P<inline>(?:FINDINGS? AND )?IMPRESSIONS?)[ \t]*:",
    re.M,
)
_MASKED = re.compile(r"_{2,}|\w*X{4,}\w*")
#: A sentence that says whom the findings were told to, when and how.
_TOLD = re.compile(
    r"\b(?:discussed|communicated|conveyed|relayed|notified|informed|paged|telephoned|reported|called|entered|alerted)\b"
    r"(?=.*\b(?:dr|drs|doctor|md|np|rn|pa|nurse|physician|team|service|telephone|phone|pager|paged|dashboard|"
    r"person|email|e-mail|at \d{1,2}[:.]?\d{2}|at time of|at the time of|by ___|with ___|to ___)\b)",
    re.I,
)
_SENTENCE = re.compile(r"(?<=[.!?])(?<!\bDr\.)(?<!\bDrs\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\d\.)\s+")


@dataclass(frozen=True)
class TextRules:
    """How impressions are cut out of reports; every choice is kept in the manifest."""

    preset: Literal["sections", "paper"] = "sections"
    """sections: the rules of :mod:`meddiff.preparation.reports_text`; paper: literally what the published code did."""
    several: Literal["last", "joined"] = "last"
    """Reports with several impressions: the last one that is not empty, or all of them in order."""
    no_heading: Literal["none", "last-paragraph"] = "none"
    """Reports without any such heading: no impression, or their last paragraph that is findings or plain text."""
    masked: Literal["keep", "drop"] = "keep"
    """De-identification tokens (___ and XXXX): kept as they are, or taken out."""
    notification: Literal["keep", "cut"] = "keep"
    """Sentences on whom the findings were told to, and all after them: kept, or cut off."""


#: The rules above.
SECTIONS = TextRules()
#: Split at the literal "IMPRESSION:"; exactly two parts, or nothing; line breaks deleted, so that words stick together.
PAPER = TextRules(preset="paper")


@dataclass(frozen=True)
class Impression:
    """What was found.

    Attributes:
        text: one line; "" when nothing was found.
        origin: heading, several headings, addendum, last paragraph, paper, or why there is none: no heading, empty,
            notification only.
    """

    text: str
    origin: str


def find_impression(report: str, rules: TextRules | None = None) -> Impression:
    """The impression of a report, by ``rules`` (default: :class:`TextRules`)."""
    rules = rules or SECTIONS
    if rules.preset == "paper":
        return _as_published(report)
    report = report.replace("\r\n", "\n").replace("\r", "\n")
    proper, addenda = _parts(report)
    origin, sections = "heading", _sections(proper)
    if not any(sections):
        late = _sections(addenda)
        origin, sections = ("addendum", late) if any(late) else (origin, sections)
    found = [text for text in sections if text]
    if not sections and rules.no_heading == "last-paragraph":
        origin, found = "last paragraph", _last_paragraph(proper, rules)
    if not found:
        return Impression("", "empty" if sections else "no heading")
    if len(found) > 1 and origin == "heading":
        origin = "several headings"
    text = " ".join(found) if rules.several == "joined" else found[-1]
    if rules.notification == "cut":
        text = cut_notification(text)
        origin = origin if text else "notification only"
    if rules.masked == "drop":
        text = drop_masked(text)
    if says_nothing(text):
        text = ""
    return Impression(text, origin if text else "notification only" if origin == "notification only" else "empty")


def one_line(text: str) -> str:
    """Line breaks and blanks as one blank; "left-<line break>sided" as "left-sided"."""
    return re.sub(r"\s+", " ", re.sub(r"(?<=[A-Za-z])-[ \t]*\n\s*(?=[a-z])", "-", text)).strip()


def drop_masked(text: str) -> str:
    """One line without de-identification tokens; "x-XXXX" is "x-ray", as only that word is ever masked there."""
    text = _MASKED.sub("", re.sub(r"\bx-X{4}", "x-ray", text, flags=re.I))
    text = re.sub(r"\(\s*\)", "", text)
    text = re.sub(r"\s+([,;:!?)]|\.(?!\d))", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"([.,;:])(?:\s*[,;:])+|[,;:]+(?=[.!?])", r"\1", text)
    return re.sub(r"(?:^\s*|(?<=\.\s))[,;:.]+(?:\s+|$)", "", text).strip()


def cut_notification(text: str) -> str:
    """``text`` (one line) up to the first sentence that tells whom the findings were told to."""
    kept: list[str] = []
    for sentence in _SENTENCE.split(text):
        if _TOLD.search(sentence):
            break
        kept.append(sentence)
    # the number of a list entry that was cut off
    return re.sub(r"(?:^|\s)\d{1,2}[.)]$", "", " ".join(kept)).strip()


def _as_published(report: str) -> Impression:
    parts = report.split("IMPRESSION:")
    if len(parts) != 2:
        return Impression("", "no heading")
    text = parts[1].strip().replace("\n", "")
    return Impression(text, "paper" if text else "empty")


def _parts(report: str) -> tuple[str, str]:
    """The report proper and its addenda; banners are gone, and wet reads with them."""
    proper: list[str] = []
    addenda: list[str] = []
    kind, start = "", 0
    for banner in [*_BANNER.finditer(report), None]:
        text = report[start : banner.start() if banner else len(report)]
        # a blank line in place of a banner, so that no section runs through it
        (addenda if kind == "ADDENDUM" else proper if not kind else []).append(text)
        if banner is None:
            break
        start = banner.start("rest") if banner["name"] else banner.end()
        if banner["name"]:
            special = _SPECIAL.search(banner["name"])
            kind = special.group(0).upper() if special else ""
        elif banner["rule"]:
            # the line of underscores that MIMIC-CXR draws under an addendum or a wet read
            kind = ""
    return "\n\f\n".join(proper), "\n\f\n".join(addenda)


def _sections(part: str) -> list[str]:
    """The text under every heading of an impression, in order; "" where nothing is under it."""
    headings = list(_HEADING.finditer(part))
    ends = [*(heading.start() for heading in headings[1:]), len(part)][: len(headings)]
    return [
        one_line(part[heading.end() : end].split("\f")[0])
        for heading, end in zip(headings, ends, strict=True)
        if heading["start"] or heading["bare"] or heading["inline"]
    ]


def _last_paragraph(proper: str, rules: TextRules) -> list[str]:
    """The last paragraph that is plain text or findings, without its heading."""
    for paragraph in reversed(re.split(r"\n[ \t]*\n|\f", proper)):
        heading = _HEADING.match(paragraph.lstrip("\n"))
        body = paragraph.lstrip("\n")[heading.end() :] if heading else paragraph
        text = one_line(body)
        told = rules.notification == "cut" and text and not cut_notification(text)
        if heading and "FINDING" not in heading.group(0).upper():
            continue
        if text and not told:
            return [text]
    return []
