"""Checks synthetic impressions: ``python tools/check_impressions.py [FILE] [--texts N]``. Source: own.

Every class has as many texts as it should; a text names its class, asserts that class and no other, is short enough for
the text encoder, and is none of the others over again. The table also shows how varied the language is.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from datamodules.prompts import SYNTHETIC, Texts, read_texts
from meddiff.attribution.naming import names_class
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.models.text.clip_tokenizer import CONTEXT_LENGTH, ClipTokenizer
from meddiff.phantoms.report_words import read_sentences

TEXTS, WORDS, SENTENCES = 100, (5, 45), (1, 3)
#: Two texts are nearly the same when they share more than this part of all their words.
ALIKE = 0.8
#: At most this part of a class may be nearly the same as another text of it.
ALIKE_SHARE = 0.03


@dataclass
class ClassReport:
    """The figures of one class and the rules it breaks.

    Attributes:
        duplicates: texts that occurred before, in this class or another one, but for case and punctuation.
        alike: texts that share more than :data:`ALIKE` of their words with another text of the class, not being the same.
        nearest: the largest such share (Jaccard index of the two sets of words).
        words: of each text, blank-separated.
        tokens: the most any text has, start and end token included.
        vocabulary: different words; running: all words.
        openings: different pairs of first words.
        broken: one sentence each.
    """

    label: str
    texts: int = 0
    duplicates: int = 0
    alike: int = 0
    nearest: float = 0.0
    words: list[int] = field(default_factory=list)
    tokens: int = 0
    vocabulary: Counter[str] = field(default_factory=Counter)
    openings: int = 0
    broken: list[str] = field(default_factory=list)


def split_words(text: str) -> list[str]:
    """Lower-case words and numbers without punctuation."""
    return re.findall(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*", text.lower())


def split_sentences(text: str) -> list[str]:
    """Sentences; a point inside a number ends none."""
    return re.split(r"(?<=[.!?])\s+", text)


def likeness(first: Sequence[str], second: Sequence[str]) -> float:
    """Jaccard index of two sets of words: shared ones over all."""
    one, two = set(first), set(second)
    return len(one & two) / max(len(one | two), 1)


def broken_rules(text: str, label: str) -> list[str]:
    """What is wrong with one text of a class, in a few words each."""
    words, sentences = len(text.split()), split_sentences(text)
    asserted, _, _ = read_sentences(sentences)
    tokens = len(ClipTokenizer().ids(text))
    wrong = []
    if not WORDS[0] <= words <= WORDS[1]:
        wrong.append(f"{words} words, not {WORDS[0]} to {WORDS[1]}")
    if not SENTENCES[0] <= len(sentences) <= SENTENCES[1]:
        wrong.append(f"{len(sentences)} sentences, not {SENTENCES[0]} to {SENTENCES[1]}")
    if tokens > CONTEXT_LENGTH:
        wrong.append(f"{tokens} tokens, the text encoder takes {CONTEXT_LENGTH}")
    if label in FINDINGS and not names_class(text, label, QUERY_WORDS[label]):
        wrong.append("does not name its class")
    if label in FINDINGS and label not in asserted:
        wrong.append("does not assert its class")
    others = sorted(set(asserted) - {label})
    if others and label in (*FINDINGS, NO_FINDING):
        wrong.append(f"asserts {', '.join(others)}")
    return wrong


def check_class(label: str, texts: Sequence[str], wanted: int, seen: set[tuple[str, ...]]) -> ClassReport:
    """The figures of one class.

    Args:
        wanted: texts it should have; 0 takes any number.
        seen: words of the texts of earlier classes; those of this one are added.
    """
    report = ClassReport(label, len(texts))
    split = [split_words(text) for text in texts]
    if wanted and len(texts) != wanted:
        report.broken.append(f"{label} has {len(texts)} texts, not {wanted}")
    for text, words in zip(texts, split, strict=True):
        wrong = broken_rules(text, label)
        if tuple(words) in seen:
            report.duplicates += 1
            wrong.append("occurs twice")
        seen.add(tuple(words))
        report.broken += [f"{label}: {what}: {text!r}" for what in wrong]
        report.words.append(len(text.split()))
        report.tokens = max(report.tokens, len(ClipTokenizer().ids(text)))
        report.vocabulary.update(words)
    near: set[int] = set()
    for first, second in combinations(range(len(texts)), 2):
        shared = likeness(split[first], split[second])
        report.nearest = max(report.nearest, shared)
        if shared > ALIKE and split[first] != split[second]:
            near |= {first, second}
    report.alike = len(near)
    if report.alike > ALIKE_SHARE * len(texts):
        report.broken.append(f"{label}: {report.alike} texts are nearly the same as another one")
    report.openings = len({tuple(words[:2]) for words in split})
    return report


def check_texts(texts: Texts, wanted: int = TEXTS) -> list[ClassReport]:
    """A report for each class of the paper and "No Finding", then for any other class of the file."""
    seen: set[tuple[str, ...]] = set()
    labels = [*FINDINGS, NO_FINDING, *sorted(set(texts) - {*FINDINGS, NO_FINDING})]
    return [check_class(label, texts.get(label, ()), wanted, seen) for label in labels]


def format_table(reports: Sequence[ClassReport]) -> str:
    """The figures as text, a row a class and one for all; "nearest" is the likeness of the two nearest texts."""
    head = (
        "class",
        "texts",
        "dupl.",
        "near",
        "nearest",
        "words/text",
        "tokens",
        "vocabulary",
        "type/token",
        "openings",
    )
    rows: list[tuple[str, ...]] = [head]
    everything = Counter[str]()
    for one in reports:
        everything += one.vocabulary
        rows.append((one.label, *_figures(one, one.vocabulary)))
    total = ClassReport(
        "all",
        sum(one.texts for one in reports),
        sum(one.duplicates for one in reports),
        sum(one.alike for one in reports),
        max((one.nearest for one in reports), default=0.0),
        [words for one in reports for words in one.words],
        max((one.tokens for one in reports), default=0),
        openings=sum(one.openings for one in reports),
    )
    rows.append((total.label, *_figures(total, everything)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not place else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _figures(report: ClassReport, vocabulary: Counter[str]) -> tuple[str, ...]:
    words, running = report.words or [0], max(vocabulary.total(), 1)
    return (
        str(report.texts),
        str(report.duplicates),
        str(report.alike),
        f"{report.nearest:.2f}",
        f"{min(words)}-{max(words)} ({sum(words) / len(words):.1f})",
        str(report.tokens),
        str(len(vocabulary)),
        f"{len(vocabulary) / running:.3f}",
        str(report.openings),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and what is wrong; 1 when a rule is broken, 2 when the file cannot be read."""
    parser = argparse.ArgumentParser("python tools/check_impressions.py", description="Check synthetic impressions.")
    parser.add_argument("file", type=Path, nargs="?", default=SYNTHETIC, help="CSV with label and impression.")
    parser.add_argument("--texts", type=int, default=TEXTS, help="Texts each class should have; 0 takes any number.")
    options = parser.parse_args(arguments)
    try:
        texts = read_texts(options.file)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    reports = check_texts(texts, options.texts)
    print(format_table(reports))
    broken = [sentence for report in reports for sentence in report.broken]
    print("\n".join([f"{len(broken)} rule{'s' * (len(broken) > 1)} broken" if broken else "all rules hold", *broken]))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
