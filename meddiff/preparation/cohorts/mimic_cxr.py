"""MIMIC-CXR-JPG with the reports of MIMIC-CXR: training, validation and the p19 fidelity set.

Source: Dombrowski et al. 2024, section "Data" (PA and AP views, impressions of more than 7 characters, MS-CXR and p19 held
out, 162,651 training images); the published code holds neither the filter nor the thinning rule, so both are own.
Files, rules and what is not known: docs/cohorts_mimic.md.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.mimic_files import Reports, folder_above, image_path, is_identifier
from meddiff.preparation.cohorts.mimic_labels import OTHER_LABELS, label_table, label_value, labels_of
from meddiff.preparation.records import Funnel, Reading, Record
from meddiff.preparation.reports_text import SECTIONS, Impression, TextRules
from meddiff.preparation.rows import Row, Sieve, find_file, read_rows, require, zipped

#: Training images of the paper.
PAPER_TRAIN = 162_651
PHYSIONET = "MIMIC-CXR-JPG (physionet.org/content/mimic-cxr-jpg, credentialed access)"
#: From the most to the least held out.
OFFICIAL = ("test", "validate", "train")


@dataclass(frozen=True)
class MimicCxrOptions:
    """Options of ``lightning prepare mimic-cxr``."""

    views: tuple[str, ...] = ("PA", "AP")
    """View positions that are used."""
    min_characters: int = 8
    """Shortest impression; the paper asks for more than 7 characters."""
    text: TextRules = SECTIONS
    """How impressions are cut out of reports."""
    reports: str = ""
    """Zip of the reports, or folder that holds their files/, relative to the root; empty looks for it."""
    labeler: Literal["chexpert", "negbio"] = "chexpert"
    """Which labels are read."""
    uncertain: Literal["drop", "positive"] = "drop"
    """Labels of -1: no label, or a positive one."""
    unlabelled: Literal["none", "no-finding"] = "none"
    """Studies without any certain label: no label, or "No Finding" (what the published code took them for)."""
    hold_out_ms_cxr: bool = True
    """Leave out all images of the patients of MS-CXR; needs its csv."""
    ms_cxr: str = ""
    """The csv of MS-CXR relative to the root; empty looks for it."""
    fidelity: int = 5000
    """Images of the fidelity set, drawn from the p19 patients, all of whom are held out; 0 leaves it out."""
    no_finding_share: float = 1 / 9
    """Largest part of the fidelity set that is "No Finding" (one of nine classes)."""
    val: Literal["official", "patients"] = "official"
    """Validation: the official validate split (and the official test split is left out), or patients drawn by the seed."""
    val_fraction: float = 0.01
    """Part of the patients drawn for validation; used with val=patients."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if self.fidelity < 0 or not 0 <= self.no_finding_share <= 1 or not 0 <= self.val_fraction < 1:
            raise UserError(
                "mimic-cxr: fidelity must not be negative, no_finding_share within 0..1, val_fraction within 0..1."
            )


@dataclass
class _Image:
    """A row of the metadata and what was found about it."""

    dicom_id: str
    subject_id: str
    study_id: str
    view: str
    size: tuple[str, str]
    impression: Impression | None = None
    split: str = ""
    labels: tuple[str, ...] = ()


def read(root: Path, options: MimicCxrOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: an official file is missing or damaged.
    """
    options, root = options or MimicCxrOptions(), Path(root)
    metadata = require(root, zipped("mimic-cxr-2.0.0-metadata.csv"), PHYSIONET)
    label_file = require(root, zipped(f"mimic-cxr-2.0.0-{options.labeler}.csv"), PHYSIONET)
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    rows = read_rows(root, metadata, columns)
    funnel = Funnel()
    sieve = Sieve([_image(row) for row in rows], lambda image: image.dicom_id, funnel)
    sieve.apply("malformed identifiers", _malformed)
    sieve.unique("repeated dicom_id", lambda image: image.dicom_id)
    views = " or ".join(options.views)
    sieve.apply(f"view is not {views}", lambda image: None if image.view in options.views else image.view or "no view")
    _read_impressions(root, options, sieve)
    _hold_out(root, options, sieve)
    table = label_table(root, label_file, {image.study_id for image in sieve.items})
    for image in sieve.items:
        image.labels = labels_of(table.get(image.study_id, {}), options.uncertain, options.unlabelled)
    if options.fidelity:
        drawn = draw_fidelity(sieve.items, options)
        sieve.apply(
            "p19 image not drawn for the fidelity set",
            lambda image: (
                None if image.split != "fidelity" or image.dicom_id in drawn else ", ".join(image.labels) or "no label"
            ),
        )
    prefix = folder_above(metadata)
    records = sorted((_record(image, prefix, table) for image in sieve.items), key=lambda record: record.key)
    counts = Counter(record.split for record in records)
    facts = {"counts": dict(counts), "paper_train": PAPER_TRAIN, "files": [metadata, label_file]}
    return Reading("mimic-cxr", root, records, funnel, sieve.rejected, asdict(options) | facts)


def draw_fidelity(images: Iterable[_Image], options: MimicCxrOptions) -> set[str]:
    """dicom_ids of the fidelity set.

    Of ``fidelity`` images at most ``no_finding_share`` (rounded down) are "No Finding"; the others have one or more of the
    eight findings, in their natural frequency. Images without a label are not drawn. Every image has a number drawn by
    (seed, dicom_id) and the smallest are taken, so one image more or less in the cohort changes one image of the set.
    Where too few have findings the set is smaller: it is not filled up with "No Finding".
    """
    queues: dict[bool, list[tuple[float, str]]] = {True: [], False: []}
    for image in images:
        if image.split == "fidelity" and image.labels:
            draw = float(generator(options.seed, "mimic-cxr", "fidelity", image.dicom_id).random())
            queues[image.labels == (NO_FINDING,)].append((draw, image.dicom_id))
    normal = sorted(queues[True])[: int(options.fidelity * options.no_finding_share + 1e-9)]
    findings = sorted(queues[False])[: options.fidelity - len(normal)]
    return {dicom_id for _, dicom_id in [*normal, *findings]}


def _image(row: Row) -> _Image:
    size = (row.get("Columns", ""), row.get("Rows", ""))
    return _Image(row["dicom_id"], row["subject_id"], row["study_id"], row["ViewPosition"].upper(), size)


def _malformed(image: _Image) -> str | None:
    if is_identifier(image.dicom_id, image.subject_id, image.study_id):
        return None
    return f"dicom {image.dicom_id!r}, patient {image.subject_id!r}, study {image.study_id!r}"


def _read_impressions(root: Path, options: MimicCxrOptions, sieve: Sieve[_Image]) -> None:
    studies = [(image.subject_id, image.study_id) for image in sieve.items]
    reports = Reports(root, options.reports, options.text, studies)
    if reports.source is None and studies:
        raise UserError(
            f"{root} holds no reports: put mimic-cxr-reports.zip of MIMIC-CXR (physionet.org/content/mimic-cxr, credentialed "
            "access) there, or its text files (files/p10/p10000032/s50414267.txt)."
        )
    for image in sieve.items:
        image.impression = reports.impression(image.subject_id, image.study_id)
    sieve.apply("no report", lambda image: f"study {image.study_id}" if image.impression is None else None)
    sieve.apply("no impression", lambda image: None if _found(image).text else _found(image).origin)

    def too_short(image: _Image) -> str | None:
        text = _found(image).text
        return None if len(text) >= options.min_characters else text

    sieve.apply(f"impression shorter than {options.min_characters} characters", too_short)


def _found(image: _Image) -> Impression:
    assert image.impression is not None
    return image.impression


def _hold_out(root: Path, options: MimicCxrOptions, sieve: Sieve[_Image]) -> None:
    """Give every image its split; leave out MS-CXR's patients and the official test split."""
    if options.hold_out_ms_cxr:
        images, patients = ms_cxr_members(root, options.ms_cxr)
        sieve.apply("MS-CXR image", lambda image: "" if image.dicom_id in images else None)
        sieve.apply(
            "other image of a patient of MS-CXR",
            lambda image: f"patient {image.subject_id}" if image.subject_id in patients else None,
        )
    for image in sieve.items:
        image.split = "fidelity" if image.subject_id.startswith("19") else ""
    if not options.fidelity:
        sieve.apply("p19 patient", lambda image: image.subject_id if image.split else None)
    if options.val == "patients":
        for image in sieve.items:
            draw = generator(options.seed, "mimic-cxr", "val", image.subject_id).random()
            image.split = image.split or ("val" if draw < options.val_fraction else "train")
        return
    name = require(root, zipped("mimic-cxr-2.0.0-split.csv"), PHYSIONET)
    official: dict[str, str] = {}
    patients_of: dict[str, set[str]] = {}
    for row in read_rows(root, name, ("dicom_id", "subject_id", "split")):
        official[row["dicom_id"]] = row["split"]
        patients_of.setdefault(row["subject_id"], set()).add(row["split"])

    def unknown(image: _Image) -> str | None:
        if image.split or official.get(image.dicom_id) in OFFICIAL:
            return None
        return official.get(image.dicom_id) or "not in the split file"

    def torn(image: _Image) -> str | None:
        held = next((one for one in OFFICIAL if one in patients_of[image.subject_id]), "")
        return (
            None if image.split or official[image.dicom_id] == held else f"patient {image.subject_id} is also in {held}"
        )

    sieve.apply("no official split", unknown)
    for image in sieve.items:
        patients_of.setdefault(image.subject_id, {official.get(image.dicom_id, "")})
    sieve.apply("patient in two official splits", torn)
    sieve.apply(
        "official test split",
        lambda image: "" if not image.split and official[image.dicom_id] == "test" else None,
    )
    for image in sieve.items:
        image.split = image.split or ("val" if official[image.dicom_id] == "validate" else "train")


def ms_cxr_members(root: Path, name: str = "") -> tuple[set[str], set[str]]:
    """dicom_ids and patients of MS-CXR.

    Raises:
        UserError: its csv is not there.
    """
    name = name or find_file(root, ["MS_CXR_Local_Alignment_v*.csv"]) or ""
    if not name:
        raise UserError(
            f"{root} holds no MS_CXR_Local_Alignment_v*.csv (physionet.org/content/ms-cxr, credentialed access), without which "
            "its images cannot be held out: put it there, or set hold_out_ms_cxr to false."
        )
    images: set[str] = set()
    patients: set[str] = set()
    for row in read_rows(root, name, ("dicom_id", "path")):
        images.add(row["dicom_id"])
        patients |= {
            part[1:] for part in row["path"].split("/") if len(part) > 4 and part[0] == "p" and part[1:].isdigit()
        }
    return images, patients


def _record(image: _Image, prefix: str, table: Mapping[str, Row]) -> Record:
    row = table.get(image.study_id, {})
    attributes: dict[str, Any] = {
        "study_id": image.study_id,
        "uncertain": [label for label in FINDINGS if label_value(row, label) == -1.0],
        "other_labels": [label for label in OTHER_LABELS if label_value(row, label) == 1.0],
        "impression_from": _found(image).origin,
    }
    return Record(
        key=image.dicom_id,
        path=prefix + image_path(image.subject_id, image.study_id, image.dicom_id),
        split=image.split,
        patient_id=image.subject_id,
        impression=_found(image).text,
        labels=image.labels,
        view=image.view,
        attributes=attributes,
    )
