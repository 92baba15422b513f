"""Files of MIMIC-CXR-JPG, MIMIC-CXR and MS-CXR: where they lie, their rows, and the reports as impressions.

The root may be the MIMIC-CXR-JPG folder itself with the other files put beside its csv.gz, or the folder above several
PhysioNet downloads (``mimic-cxr-jpg/2.1.0``, ``mimic-cxr/2.1.0``, ``ms-cxr/1.1.0``): files are looked for in the root
and in the folders one and two levels below it. Source: own; layouts as PhysioNet documents them.
"""

import re
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from meddiff.common.errors import UserError
from meddiff.common.text_files import check_file
from meddiff.preparation.reports_text import Impression, TextRules, find_impression
from meddiff.preparation.rows import find_file
from meddiff.preparation.safe_files import LARGEST, inside

#: Studies tried before a folder is taken to hold no reports.
TRIED = 200


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
        path = inside(self.root, self.source)
        check_file(path, LARGEST)
        try:
            return zipfile.ZipFile(path)
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
        archive = find_file(self.root, ["mimic-cxr-reports.zip"])
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
