"""Rows of csv files whose cells may be of any length: outlines and run lengths are longer than csv's own limit. Source: own."""

import csv
from collections.abc import Iterable, Iterator
from typing import Protocol

#: Characters of a cell, as many as a C long holds on every system; csv's own limit is 131,072.
_LONGEST = 2**31 - 1


class Reader(Protocol):
    """What ``csv.reader`` gives: rows, and the number of the line that was read last."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


def csv_rows(lines: Iterable[str], strict: bool = False) -> Reader:
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
