"""Which text an image is trained with: its impression, a synthetic impression of its class, its labels, or now this, now that.

Source: the paper's prompt variability (Table 7; spec/tradeoff.md sections 1.3 and 1.5). The synthetic texts are our own
(``synthetic/README.md``), because the paper's are not published; "mixed" is own.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from meddiff.common.csv_rows import csv_records
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.shards.manifest import Manifest
from meddiff.shards.schema import SampleMetadata

Prompt = Literal["impression", "synthetic", "label", "mixed"]
#: Class -> its synthetic impressions, in the order of the file.
Texts = Mapping[str, tuple[str, ...]]
#: The texts that ship with the suite.
SYNTHETIC = Path(__file__).parent / "synthetic" / "impressions.csv"
COLUMNS = ("label", "impression")


def read_texts(path: str | Path | None = None) -> dict[str, tuple[str, ...]]:
    """Synthetic impressions by class.

    Args:
        path: CSV with the columns ``label`` and ``impression``, a row a text; None takes :data:`SYNTHETIC`.

    Raises:
        UserError: not readable, other columns, a row that lacks a value, no texts, or none of "No Finding".
    """
    path = Path(SYNTHETIC if path is None else path)
    texts: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv_records(stream)
            columns = reader.fieldnames or ()
            absent = [name for name in COLUMNS if name not in columns]
            if absent:
                raise UserError(
                    f"synthetic_prompts: {path} has no column {' and no '.join(map(repr, absent))}: it must be a CSV "
                    f"with the columns {' and '.join(COLUMNS)}, a row a text."
                )
            for row in reader:
                label, text = ((row[name] or "").strip() for name in COLUMNS)
                if not label or not text:
                    what = COLUMNS[bool(label)]
                    raise UserError(f"synthetic_prompts: {path} has no {what} in line {reader.line_num}: fill it in.")
                texts.setdefault(label, []).append(text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"synthetic_prompts: cannot read {path} ({reason}): give a CSV file in UTF-8.") from None
    if NO_FINDING not in texts:
        has = ", ".join(texts) or "nothing"
        raise UserError(
            f"synthetic_prompts: {path} has no texts of {NO_FINDING!r} (it has {has}): images without a class that has "
            "texts take those, so add at least one."
        )
    return {label: tuple(rows) for label, rows in texts.items()}


def check_texts(texts: Texts, labels: Iterable[str], path: str | Path | None = None) -> None:
    """Refuse texts that do not fit a cohort.

    A finding of the paper without texts would be trained as "No Finding". Other labels may lack texts (the paper's rule
    passes over them), but not all labels of a cohort.

    Args:
        labels: all that occur in the cohort; path: where the texts are from, for the sentence.

    Raises:
        UserError: a finding of the cohort, or every class of it, has no texts.
    """
    path, classes = path or SYNTHETIC, [label for label in labels if label != NO_FINDING]
    missing = [label for label in FINDINGS if label in classes and label not in texts]
    if not missing and classes and not any(label in texts for label in classes):
        missing = classes
    if missing:
        raise UserError(
            f"synthetic_prompts: {path} has no texts of {', '.join(missing[:8])}{', ...' * (len(missing) > 8)}, which "
            "the cohort has: add rows for them, or give a file of your own."
        )


def load_texts(prompt: Prompt, path: str | None, manifest: Manifest | None = None) -> Texts | None:
    """The texts that prompt "synthetic" draws from, fit for the cohort of ``manifest``; None for other prompts.

    Raises:
        UserError: as :func:`read_texts` and :func:`check_texts`.
    """
    if prompt != "synthetic":
        return None
    texts = read_texts(path)
    counts = {} if manifest is None else manifest.counts
    check_texts(texts, sorted({label for split in counts.values() for label in split.get("labels", {})}), path)
    return texts


def missing_texts(prompt: Prompt, path: str | None, manifest: Manifest | None = None) -> list[str]:
    """What :func:`load_texts` would refuse, as a list of at most one sentence."""
    try:
        load_texts(prompt, path, manifest)
    except UserError as error:
        return [str(error)]
    return []


def texts_digest(texts: Texts) -> str:
    """Eight hexadecimal digits that tell two sets of texts apart."""
    text = "\x1e".join("\x1f".join((label, *texts[label])) for label in sorted(texts))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def choose_caption(
    metadata: SampleMetadata, prompt: Prompt, address: tuple[object, ...], texts: Texts | None = None
) -> str:
    """The text an item is trained with.

    Args:
        metadata: of the image; its impression, captions and labels count.
        prompt: "impression" = the impression, or one of the captions where there are several; "label" = the labels in
            drawn order, joined by a blank; "synthetic" = one of the texts of the last label, in drawn order, that has
            texts, and of "No Finding" where none has; "mixed" = for each image and epoch anew, with even odds, what
            "impression" or "label" gives.
        address: (seed, "caption", epoch, key); drawn from only when there is something to choose.
        texts: for "synthetic", by class.
    """
    if prompt == "synthetic":
        assert texts is not None, "the data module gives them"
        draw = generator(*address)
        drawn = [metadata["labels"][place] for place in draw.permutation(len(metadata["labels"]))]
        rows = texts[next((label for label in reversed(drawn) if label in texts), NO_FINDING)]
        return rows[int(draw.integers(len(rows)))]
    if prompt == "mixed":
        prompt = "label" if generator(*address, "kind").random() < 0.5 else "impression"
    choices = metadata["labels"] if prompt == "label" else metadata["captions"] or [metadata["impression"]]
    if len(choices) < 2:
        return choices[0] if choices else ""
    draw = generator(*address)
    if prompt == "label":
        return " ".join(choices[place] for place in draw.permutation(len(choices)))
    return choices[int(draw.integers(len(choices)))]
