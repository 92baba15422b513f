"""Files of synthetic impressions."""

import csv
from collections.abc import Sequence
from pathlib import Path


def write_texts(path: Path, *rows: Sequence[str], header: Sequence[str] = ("label", "impression")) -> str:
    """A csv of ``rows`` below ``header``; returns its path as configs name it."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)
