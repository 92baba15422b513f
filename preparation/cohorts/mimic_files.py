"""Files of MIMIC-CXR-JPG, MIMIC-CXR and MS-CXR: where they lie, their rows, and the reports as impressions.

The root may be the MIMIC-CXR-JPG folder itself with the other files put beside its csv.gz, or the folder above several
PhysioNet downloads (``mimic-cxr-jpg/2.1.0``, ``mimic-cxr/2.1.0``, ``ms-cxr/1.1.0``): files are looked for in the root
and in the folders one and two levels below it. Source: own; layouts as PhysioNet documents them.
"""

import csv
import re
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from common.errors import UserError
from preparation.records import Funnel, Rejected
from preparation.reports_text import Impression, TextRules, find_impression
from preparation.safe_files import inside, open_text

Row = dict[str, str]
Item = TypeVar("Item")

#: Studies tried before a folder is taken to hold no reports.
TRIED = 200


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
        kept = []
        for item in self.items:
            why = reason(item)
            if why is None:
                kept.append(item)
            else:
                self.rejected.append(Rejected(self.name(item), rule, why))
        self.items = kept
        self.funnel.keep(rule, len(kept))

    def unique(self, rule: str, key: Callable[[Item], Hashable]) -> None:
        """Keep the first of the items that share a key."""
        seen: set[Hashable] = set()

        def reason(item: Item) -> str | None:
            if (one := key(item)) in seen:
                return "occurs more than once; the first is kept"
            seen.add(one)
            return None

        self.apply(rule, reason)


def locate(root: Path, names: Sequence[str]) -> str | None:
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
    """:func:`locate`, or a :class:`UserError` that says where the file comes from."""
    found = locate(root, names)
    if found is None:
        raise UserError(f"{root} holds no {names[0]} (nor the folders below it); it comes from {source}.")
    return found


def zipped(name: str) -> tuple[str, str]:
    """The official compressed name, then the plain one."""
    return f"{name}.gz", name


def read_rows(root: Path, name: str, columns: Iterable[str]) -> Iterator[Row]:
    """Rows of a csv or csv.gz as dictionaries; blanks around headers and values are gone.

    Raises:
        UserError: no header, a column is missing, or the file is damaged.
    """
    try:
        with open_text(root, name) as stream:
            reader = csv.DictReader(stream)
            header = [(column or "").strip().lstrip("\ufeff") for column in reader.fieldnames or []]
            missing = [column for column in columns if column not in header]
            if missing:
                raise UserError(
                    f"{name} has no column {missing[0]!r} (it has: {', '.join(header) or 'nothing'}): "
                    "it is not the official file."
                )
            reader.fieldnames = header
            for row in reader:
                yield {column: (value or "").strip() for column, value in row.items() if isinstance(column, str)}
    except (EOFError, OSError, csv.Error, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{name} cannot be read to its end ({error}): download it again.") from error


def is_identifier(dicom_id: str, subject_id: str, study_id: str) -> bool:
    """Whether the three are what MIMIC-CXR uses; nothing else may become part of a path."""
    return bool(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", dicom_id)
        and re.fullmatch(r"\d{3,12}", subject_id)
        and re.fullmatch(r"\d{1,12}", study_id)
    )


def image_path(subject_id: str, study_id: str, dicom_id: str) -> str:
    """``files/p10/p10000032/s50414267/DICOM.jpg``."""
    return f"files/p{subject_id[:2]}/p{subject_id}/s{study_id}/{dicom_id}.jpg"


def folder_above(name: str) -> str:
    """The folder of a file as a prefix for paths: "" or "some/folder/"."""
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else f"{parent}/"


class Reports:
    """The reports of MIMIC-CXR, in ``mimic-cxr-reports.zip`` or unpacked, read as impressions.

    Args:
        root: of the cohort.
        source: zip, or folder that holds ``files/``, relative to the root; "" looks for either.
        rules: how impressions are cut out.
        studies: (subject, study) pairs, to see whether a folder holds reports at all.
    """

    def __init__(self, root: Path, source: str, rules: TextRules, studies: Sequence[tuple[str, str]]) -> None:
        self.root, self.rules = root, rules
        self.source = self._named(source) if source else self._found(studies)
        self._known: dict[str, Impression | None] = {}

    def impression(self, subject_id: str, study_id: str) -> Impression | None:
        """The impression of a study; None where it has no report."""
        if study_id not in self._known:
            report = self._read(_report_path(subject_id, study_id)) if self.source is not None else None
            self._known[study_id] = None if report is None else find_impression(report, self.rules)
        return self._known[study_id]

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        if self.source is None or not self.source.endswith(".zip"):
            return None
        try:
            return zipfile.ZipFile(inside(self.root, self.source))
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{self.source} is no readable zip ({error}): download it again.") from error

    def _read(self, name: str) -> str | None:
        try:
            if self._archive is not None:
                # a member is asked for by a name made here, so no name out of the archive is ever used as a path
                return self._archive.read(name).decode("utf-8", "replace")
            path = inside(self.root, f"{self.source}{name}")
            return path.read_text("utf-8", "replace") if path.is_file() else None
        except KeyError:
            return None
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{self.source}: the report {name} cannot be read ({error}): download it again.") from error

    def _named(self, source: str) -> str:
        if not inside(self.root, source).exists():
            raise UserError(f"{self.root} holds no {source}: name the zip of reports or the folder that holds files/.")
        return source if source.endswith(".zip") else source.rstrip("/") + "/"

    def _found(self, studies: Sequence[tuple[str, str]]) -> str | None:
        archive = locate(self.root, ["mimic-cxr-reports.zip"])
        if archive is not None:
            return archive
        for depth in ("", "*/", "*/*/"):
            for folder in sorted(self.root.glob(depth + "files")):
                if any((folder.parent / _report_path(*study)).is_file() for study in studies[:TRIED]):
                    prefix = folder.parent.relative_to(self.root).as_posix()
                    return "" if prefix == "." else f"{prefix}/"
        return None


def _report_path(subject_id: str, study_id: str) -> str:
    return f"files/p{subject_id[:2]}/p{subject_id}/s{study_id}.txt"
