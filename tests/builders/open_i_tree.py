"""Open-I downloads of the official shape; the reports are made up."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.builders.files import touch_images


def report_xml(
    uid: str, impression: str | None, headings: Sequence[str], images: Sequence[str], automatic: Sequence[str] = ()
) -> str:
    """A report in the shape of Open-I, with made-up content.

    Args:
        headings, automatic: MeSH terms by hand and by machine.
        images: names of its pictures, "CXR7_IM-0030-1001".
    """
    found = "" if impression is None else escape(impression)
    tags = "".join(f"<major>{escape(one)}</major>" for one in headings)
    tags += "".join(f"<automatic>{escape(one)}</automatic>" for one in automatic)
    pictures = "".join(
        f'<parentImage id="{one}"><figureId>F1</figureId><caption>Xray Chest PA and Lateral</caption>'
        f"<panel type='single'><url>/hadoop/{one}.jpg</url></panel></parentImage>"
        for one in images
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/><uId id="{uid}"/><MedlineCitation><Article>'
        '<Abstract><AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>'
        '<AbstractText Label="FINDINGS">There is no pneumothorax and no effusion.</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{found}</AbstractText></Abstract></Article></MedlineCitation>'
        f"<MeSH>{tags}</MeSH>{pictures}</eCitation>"
    )


def write_reports(root: Path, reports: Mapping[str, str], packed: bool) -> None:
    """``reports`` by file name, as the archive of NLM or as the folder in it."""
    root.mkdir(parents=True, exist_ok=True)
    if packed:
        with tarfile.open(root / "NLMCXR_reports.tgz", "w:gz") as archive:
            for name, text in reports.items():
                info = tarfile.TarInfo(f"ecgen-radiology/{name}")
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        return
    (root / "ecgen-radiology").mkdir()
    for name, text in reports.items():
        (root / "ecgen-radiology" / name).write_text(text, encoding="utf-8")


def touch_pictures(root: Path, names: Sequence[str], folder: str = "NLMCXR_png") -> None:
    """Empty files in the place of the pictures ``names``."""
    touch_images(root / folder, (f"{name}.png" for name in names))


PAIR = ("CXR7_IM-0030-1001", "CXR7_IM-0030-2001")
REPORTS = {
    "7.xml": report_xml("CXR7", "Stable cardiomegaly,\n no XXXX effusion.", ["Cardiomegaly/mild"], PAIR),
    "8.xml": report_xml("CXR8", "Normal chest x-XXXX.", ["normal"], ["CXR8_IM-0031-1001"]),
    "9.xml": report_xml("CXR9", None, ["normal"], ["CXR9_IM-0032-1001"]),
    "10.xml": report_xml("CXR10", "Clear.", ["normal"], ["CXR10_IM-0033-1001"]),
    "11.xml": report_xml("CXR11", "Nothing in the lungs.", ["Scoliosis"], ["CXR11_IM-0034-1001"]),
    "12.xml": report_xml("CXR12", "There is no image of this.", ["normal"], []),
    "bad.xml": "<eCitation><uId id='CXR13'/>",
    "bomb.xml": "<!DOCTYPE a [<!ENTITY b 'x'>]><eCitation><uId id='CXR14'/></eCitation>",
    "none.xml": "<eCitation/>",
    "twice.xml": report_xml("CXR7", "A second report of the same name.", ["normal"], ["CXR7_IM-0030-9999"]),
}
#: Pictures that are there; the one of report 11 is not.
NAMES = [*PAIR, "CXR8_IM-0031-1001", "CXR9_IM-0032-1001", "CXR10_IM-0033-1001"]
