"""Rows of csv files whose cells may be of any length: outlines and run lengths are longer than csv's own limit. Source: own."""

import csv
from collections.abc import Iterable

#: Characters of a cell, as many as a C long holds on every system; csv's own limit is 131,072.
_LONGEST = 2**31 - 1


def csv_rows(lines: Iterable[str], strict: bool = False) -> "csv._reader":
    """``csv.reader`` without its limit on the length of a cell.

    Args:
        strict: a quote that is never closed is an error, instead of swallowing all rows after it.

    Example:
        >>> [len(row[0]) for row in csv_rows(["x" * 200_000])]
        [200000]
    """
    csv.field_size_limit(_LONGEST)
    return csv.reader(lines, strict=strict)


def csv_records(lines: Iterable[str], strict: bool = False) -> "csv.DictReader[str]":
    """``csv.DictReader``, likewise."""
    csv.field_size_limit(_LONGEST)
    return csv.DictReader(lines, strict=strict)
