"""Impressions of the real Open-I reports that torchxrayvision carries, read at run time.

Data: Indiana University / Open-I chest X-ray reports, ``NLMCXR_reports.tgz`` (CC BY-NC-ND 4.0): nothing read here is
written anywhere but into the cohort the user makes. MeSH headings of a report say what it finds and where; an
impression is used only where its own words and the headings agree:

- every finding its words assert is confirmed by a heading (and gets side, zone and severity from it),
- what the words deny is not among them, what only a heading says is not rendered (the words are silent on it),
- side words in the sentence do not contradict the heading.

The de-identification token XXXX is cleaned away; sentences that consist of little else are dropped.
"""

import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.phantoms.findings import Hint
from meddiff.phantoms.grammar import weight
from meddiff.phantoms.report_words import CONFIRM, OTHER, clean, hint_of, phrase_of, read_sentences

#: Longest impression used, in the estimate of :func:`meddiff.phantoms.grammar.weight` (about CLIP tokens).
LONGEST = 50


@dataclass(frozen=True)
class RealReport:
    """One usable impression.

    Attributes:
        name: file name of the report inside the archive.
        impression: cleaned text.
        labels: findings it asserts, sorted; () for a normal chest.
        hints: ``(label, side/zone/severity)`` that the headings and words fix.
        phrases: ``(label, sentence)``.
    """

    name: str
    impression: str
    labels: tuple[str, ...]
    hints: tuple[tuple[str, Hint], ...] = ()
    phrases: tuple[tuple[str, str], ...] = ()


@dataclass
class Reports:
    """All usable impressions and what happened to the others.

    Attributes:
        normal, abnormal: usable reports, in the order of the archive.
        counts: "read", "used", and why the others were left out.
    """

    normal: list[RealReport] = field(default_factory=list)
    abnormal: list[RealReport] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def data_file(name: str) -> Path | None:
    """Path of a data file carried by torchxrayvision, None where the package or the file is missing."""
    spec = find_spec("torchxrayvision")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    return path if path.is_file() else None


@lru_cache(maxsize=1)
def read_reports() -> Reports:
    """Read and judge every report.

    Raises:
        UserError: when torchxrayvision or its archive is not installed.
    """
    path = data_file("NLMCXR_reports.tgz")
    if path is None:
        raise UserError(
            'The text source "open-i" needs NLMCXR_reports.tgz of torchxrayvision: '
            "run `pip install torchxrayvision`, or use --text grammar."
        )
    reports = Reports()
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.name.endswith(".xml")]
        for member in members:
            stream = archive.extractfile(member)
            assert stream is not None
            _judge(Path(member.name).name, ElementTree.fromstring(stream.read()), reports)
    # the archive lists files in no particular order
    reports.normal.sort(key=lambda report: report.name)
    reports.abnormal.sort(key=lambda report: report.name)
    return reports


def _judge(name: str, root: ElementTree.Element, reports: Reports) -> None:
    reports.counts["read"] += 1
    text = next((node.text for node in root.iter("AbstractText") if node.get("Label") == "IMPRESSION"), None)
    headings = [node.text or "" for node in root.iter("major")]
    sentences = clean(text or "")
    if not sentences:
        reports.counts["no impression"] += 1
        return
    asserted, denied, doubtful = read_sentences(sentences)
    reason = _reason(sentences, asserted, denied, doubtful, headings)
    if reason:
        reports.counts[reason] += 1
        return
    hints = []
    phrases = []
    for label in sorted(asserted):
        hint = hint_of(label, [h for h in headings if CONFIRM[label].search(h)], asserted[label])
        phrase = phrase_of(label, asserted[label], hint.side) if hint else None
        if hint is None or phrase is None:
            reports.counts["places disagree"] += 1
            return
        hints.append((label, hint))
        phrases.append((label, phrase))
    report = RealReport(name, " ".join(sentences), tuple(sorted(asserted)), tuple(hints), tuple(phrases))
    (reports.abnormal if asserted else reports.normal).append(report)
    reports.counts["used"] += 1


def _reason(
    sentences: list[str], asserted: dict[str, list[str]], denied: set[str], doubtful: bool, headings: list[str]
) -> str:
    """Why a report cannot be used; "" when it can."""
    if weight(" ".join(sentences)) > LONGEST:
        return "too long"
    if doubtful:
        return "finding in doubt"
    if set(asserted) & denied:
        return "asserted and denied"
    for label in asserted:
        if not any(CONFIRM[label].search(heading) for heading in headings):
            return "not confirmed by a heading"
    if not asserted:
        if any(CONFIRM[label].search(heading) for label in CONFIRM for heading in headings):
            return "finding not in the impression"
        if any(OTHER.search(sentence) for sentence in sentences):
            return "other abnormality"
    return ""
