"""What readers of all cohorts share: finding a file below the root, its rows, and rules that name what they take out.

Source: own.
"""

import csv
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from meddiff.common.csv_rows import csv_records
from meddiff.common.errors import UserError
from meddiff.preparation.cells import is_nothing
from meddiff.preparation.records import Funnel, Rejected
from meddiff.preparation.safe_files import open_text

Row = dict[str, str]
Item = TypeVar("Item")


class Sieve(Generic[Item]):
    """Items that pass rule after rule; what a rule takes out is named with its reason.

    Args:
        items: what was read.
        name: of an item in ``rejected.csv``.
        funnel: gets a step for each rule.
    """

    def __init__(self, items: Iterable[Item], name: Callable[[Item], str], funnel: Funnel) -> None:
        self.items, self.name, self.funnel = list(items), name, funnel
        self.rejected: list[Rejected] = []
        funnel.start(len(self.items))

    def apply(self, rule: str, reason: Callable[[Item], str | None]) -> None:
        """Keep the items for which ``reason`` is None; any text takes an item out and explains it."""
        self._sift(rule, reason)
        self.funnel.keep(rule, len(self.items))

    def seldom(self, rule: str, reason: Callable[[Item], str | None]) -> None:
        """As :meth:`apply`, for mistakes: the funnel gets a step only where the rule takes something."""
        if self._sift(rule, reason):
            self.funnel.keep(rule, len(self.items))

    def _sift(self, rule: str, reason: Callable[[Item], str | None]) -> int:
        """Take items out; returns how many."""
        kept, before = [], len(self.items)
        for item in self.items:
            why = reason(item)
            if why is None:
                kept.append(item)
            else:
                self.rejected.append(Rejected(self.name(item), rule, why))
        self.items = kept
        return before - len(kept)

    def unique(self, rule: str, key: Callable[[Item], Hashable]) -> None:
        """Keep the first of the items that share a key."""
        seen: set[Hashable] = set()

        def reason(item: Item) -> str | None:
            if (one := key(item)) in seen:
                return "occurs more than once; the first is kept"
            seen.add(one)
            return None

        self.apply(rule, reason)


def find_file(root: Path, names: Sequence[str]) -> str | None:
    """Path relative to the root of the first of ``names`` that is there; nearest folders first.

    Args:
        names: file names, or patterns such as ``MS_CXR_Local_Alignment_v*.csv``.

    Raises:
        UserError: a pattern fits several files of one level, so that the choice would be a guess.
    """
    for depth in ("", "*/", "*/*/"):
        for name in names:
            found = sorted(path.relative_to(root).as_posix() for path in root.glob(depth + name) if path.is_file())
            if len(found) > 1:
                raise UserError(f"{root} holds several files that would do ({', '.join(found)}): name the one to read.")
            if found:
                return found[0]
    return None


def require(root: Path, names: Sequence[str], source: str) -> str:
    """:func:`find_file`, or a :class:`UserError` that says where the file comes from."""
    found = find_file(root, names)
    if found is None:
        raise UserError(f"{root} holds no {names[0]} (nor the folders below it); it comes from {source}.")
    return found


def zipped(name: str) -> tuple[str, str]:
    """The official compressed name, then the plain one."""
    return f"{name}.gz", name


def read_rows(root: Path, name: str, columns: Iterable[str]) -> Iterator[Row]:
    """Rows of a csv or csv.gz as dictionaries; blanks around headers and values are gone.

    A cell that says "nan", "None" or the like (:func:`meddiff.preparation.cells.is_nothing`) is empty.

    Raises:
        UserError: no header, a column is missing or twice, a row longer than it, or the file is damaged.
    """
    try:
        with open_text(root, name) as stream:
            # strict: a quote that is never closed would swallow all rows after it
            reader = csv_records(stream, strict=True)
            header = [(column or "").strip().lstrip("\ufeff") for column in reader.fieldnames or []]
            missing = [column for column in columns if column not in header]
            if missing:
                raise UserError(
                    f"{name} has no column {missing[0]!r} (it has: {', '.join(header) or 'nothing'}): "
                    "it is not the official file."
                )
            if twice := [column for column in columns if header.count(column) > 1]:
                raise UserError(f"{name} has the column {twice[0]!r} twice: it is not the official file.")
            reader.fieldnames = header
            for row in reader:
                if any(cell.strip() for cell in row.get(None, ())):  # csv's own key for what is left over
                    raise UserError(
                        f"{name}, line {reader.line_num} has more cells than the header, so that its values stand in wrong "
                        "columns: download it again."
                    )
                yield {column: _filled(value) for column, value in row.items() if isinstance(column, str)}
    except (EOFError, OSError, csv.Error, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{name} cannot be read to its end ({error}): download it again.") from error


def _filled(value: str | None) -> str:
    text = (value or "").strip()
    return "" if is_nothing(text) else text
