"""Files of Open-I: reports (XML in a folder or tgz, or Kaggle's csv), image names, projections. Source: own."""

import re
import tarfile
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from meddiff.common.errors import UserError
from meddiff.common.text_files import check_file
from meddiff.preparation.records import Rejected, check_relative
from meddiff.preparation.rows import find_file, read_rows
from meddiff.preparation.safe_files import LARGEST, inside

OPEN_I = "Open-I (openi.nlm.nih.gov/faq: NLMCXR_reports.tgz, NLMCXR_png.tgz) or Kaggle (raddar/chest-xrays-indiana-university)"
#: A report has a few kilobytes.
MOST_BYTES = 4_000_000
IMAGE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images", "png", "")


@dataclass(frozen=True)
class Report:
    """One report.

    Attributes:
        uid: digits, without "CXR".
        headings, automatic: MeSH headings given by people; tags found by a program.
        images: names of its images as written; () where the file does not name them.
    """

    uid: str
    impression: str
    headings: tuple[str, ...]
    automatic: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


def image_id(name: str) -> str:
    """One name for an image in all sources: "CXR1_1_IM-0001-3001", "1_IM-0001-3001.dcm.png" -> "1_IM-0001-3001"."""
    name = PurePosixPath(name).name
    match = re.match(r"(?:CXR)?(\d+)_(?:\d+_)?(IM-[\w-]+)", name)
    return f"{match[1]}_{match[2]}" if match else re.sub(r"[^\w-]+", "_", name.removesuffix(".png"))


def read_reports(root: Path, source: str = "") -> tuple[str, list[Report], list[Rejected]]:
    """Where the reports are, the reports sorted by uid, and the files that are none.

    Raises:
        UserError: there are none, or the archive is damaged.
    """
    source = source or _find_reports(root)
    if source.endswith(".csv"):
        reports = [_csv_report(row) for row in read_rows(root, source, ("uid", "MeSH", "impression"))]
        return source, sorted(reports, key=_order), []
    reports, rejected, seen = [], [], set()
    for name, data in _xml_files(root, source):
        report = _xml_report(data)
        if isinstance(report, str):
            rejected.append(Rejected(name, "report cannot be read", report))
        elif report.uid in seen:
            rejected.append(Rejected(name, "repeated report", f"uid {report.uid}"))
        else:
            seen.add(report.uid)
            reports.append(report)
    if not reports:
        raise UserError(f"{source} holds no readable XML report; it should be the reports of {OPEN_I}.")
    return source, sorted(reports, key=_order), sorted(rejected, key=lambda one: one.item)


def image_files(root: Path, folder: str = "") -> tuple[str, dict[str, str]]:
    """The folder of the images (as a prefix for paths) and image id -> file name.

    Raises:
        UserError: no folder with PNG files.
    """
    for candidate in [folder] if folder else IMAGE_FOLDERS:
        path = inside(root, candidate) if candidate else root
        names = sorted(one.name for one in path.glob("*.png")) if path.is_dir() else []
        if names:
            return f"{candidate.rstrip('/')}/" if candidate else "", {image_id(name): name for name in names}
    raise UserError(
        f"{root} holds no PNG images ({', '.join(one for one in IMAGE_FOLDERS if one)}); they come from {OPEN_I}."
    )


def frontal_names(root: Path, views: str) -> tuple[str, dict[str, str] | None]:
    """The rule in use, and image id -> uid of the frontal images; None where the first image of a report is taken.

    Raises:
        UserError: the table the rule asks for is missing.
    """
    if views == "first":
        return views, None
    table = find_file(root, ["indiana_projections.csv"])
    if views != "judged" and table:
        rows = read_rows(root, table, ("uid", "filename", "projection"))
        return "projections", {
            image_id(row["filename"]): row["uid"] for row in rows if row["projection"].lower() == "frontal"
        }
    if views == "projections":
        raise UserError(
            f"{root} holds no indiana_projections.csv, which tells frontal from lateral images; it comes from Kaggle."
        )
    spec = find_spec("torchxrayvision")
    home = Path(spec.submodule_search_locations[0]) / "data" if spec and spec.submodule_search_locations else None
    if home is None or not (home / "nlmcxr_tsne_pa.csv.gz").is_file():
        raise UserError(
            "which images are frontal is in torchxrayvision's nlmcxr_tsne_pa.csv.gz: install it, or use views=first."
        )
    rows = read_rows(home, "nlmcxr_tsne_pa.csv.gz", ("imageid", "tsne-view"))
    names = (image_id(row["imageid"]) for row in rows if row["tsne-view"] == "PA")
    return "judged", {name: name.split("_")[0] for name in names}


def _find_reports(root: Path) -> str:
    for name in ("NLMCXR_reports.tgz", "NLMCXR_reports.tar.gz"):
        if found := find_file(root, [name]):
            return found
    folders = ("ecgen-radiology", "*/ecgen-radiology")
    for pattern in folders:
        for path in sorted(root.glob(pattern)):
            if path.is_dir():
                return path.relative_to(root).as_posix()
    found = find_file(root, ["indiana_reports.csv"])
    if not found:
        raise UserError(
            f"{root} holds no reports (NLMCXR_reports.tgz, ecgen-radiology/*.xml or indiana_reports.csv): {OPEN_I}."
        )
    return found


def _xml_files(root: Path, source: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every XML file; nothing is unpacked to disk."""
    path = inside(root, source)
    if path.is_dir():
        for one in sorted(path.glob("*.xml")):
            report = inside(root, one.relative_to(root).as_posix())
            check_file(report)
            yield one.name, report.read_bytes()[: MOST_BYTES + 1]
        return
    check_file(path, LARGEST)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() and member.name.endswith(".xml") else None
                if stream is not None:
                    check_relative(member.name)
                    yield member.name, stream.read(MOST_BYTES + 1)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{source} cannot be read to its end ({error}): download NLMCXR_reports.tgz again.") from error


def _xml_report(data: bytes) -> Report | str:
    """A report, or why it is none."""
    if len(data) > MOST_BYTES:
        return f"longer than {MOST_BYTES} bytes"
    if b"<!ENTITY" in data:
        # entities can be made to grow without end, and reports have none
        return "declares entities"
    try:
        tree = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        return str(error)
    node = tree.find("uId")
    uid = (node.get("id") or "" if node is not None else "").removeprefix("CXR")
    if not uid.isdigit():
        return f"no uid ({uid!r})"
    texts = [one.text or "" for one in tree.iter("AbstractText") if (one.get("Label") or "").upper() == "IMPRESSION"]
    headings, automatic = (
        tuple(text for one in tree.iter(tag) if (text := (one.text or "").strip())) for tag in ("major", "automatic")
    )
    images = tuple(name for one in tree.iter("parentImage") if (name := (one.get("id") or "").strip()))
    return Report(uid, " ".join(texts).strip(), headings, automatic, images)


def _csv_report(row: dict[str, str]) -> Report:
    headings = tuple(part.strip() for part in row["MeSH"].split(";") if part.strip())
    return Report(row["uid"], row["impression"], headings)


def _order(report: Report) -> tuple[int, str]:
    return (int(report.uid) if report.uid.isdigit() else 0, report.uid)
