"""Open-I (Indiana University, NLMCXR): public chest X-rays with reports, the open track's training set.

Read from the XML reports (``NLMCXR_reports.tgz`` or the folder ``ecgen-radiology``) or from Kaggle's
``indiana_reports.csv``, with the PNG images (``NLMCXR_png``, or Kaggle's ``images/images_normalized``).

- Images are of two kinds, and the reports do not say which is frontal (:attr:`OpenIOptions.views`).
- Labels come from the MeSH headings that two people gave each report, never from its text, in which most findings are
  named to be denied. Automatic tags are off by default: they are words of the text.
- All images of a report have its impression and its uid, which stands for the patient; splits are by uid.

Source: Demner-Fushman et al. 2016 (the data); the rules are own.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cells import says_nothing
from meddiff.preparation.cohorts.open_i_files import Report, frontal_names, image_files, image_id, read_reports
from meddiff.preparation.records import Funnel, Reading, Record
from meddiff.preparation.reports_text import drop_masked, one_line
from meddiff.preparation.rows import Sieve

#: label -> whole words of a heading's first part.
_WORDS = {
    "Atelectasis": r"atelectas[ie]s",
    "Cardiomegaly": r"cardiomegaly",
    "Consolidation": r"consolidations?",
    "Edema": r"edemas?",
    "Lung Opacity": r"opacity|opacities|airspace disease|infiltrates?",
    "Pleural Effusion": r"(?<!pericardial )effusions?|hydropneumothorax|hemopneumothorax",
    "Pneumonia": r"pneumonias?",
    "Pneumothorax": r"(?:hydro|hemo)?pneumothora(?:x|xes|ces)",
}
_LABEL = {label: re.compile(rf"\b(?:{words})\b") for label, words in _WORDS.items()}
_DENIED = re.compile(r"\b(?:no|not|without|absent|absence|negative|resolved|free of)\b")
#: Places an "Opacity" may be in that are no lung.
_ELSEWHERE = {
    "abdomen", "breast", "neck", "heart", "spine", "ribs", "thoracic vertebrae", "cervical vertebrae", "lumbar vertebrae",
    "mediastinum", "shoulder", "clavicle", "humerus", "aorta", "soft tissue", "breast implants", "esophagus",
}  # fmt: skip


@dataclass(frozen=True)
class OpenIOptions:
    """Options of ``lightning prepare open-i``."""

    reports: str = ""
    """NLMCXR_reports.tgz, a folder of XML reports, or indiana_reports.csv, relative to the root; empty looks for them."""
    images: str = ""
    """Folder of the PNG images relative to the root; empty looks for it."""
    views: Literal["auto", "projections", "judged", "first"] = "auto"
    """Which images are frontal. projections: those of Kaggle's indiana_projections.csv; judged: the first image of a report
    where torchxrayvision's table (a t-SNE of the images) calls it frontal; first: the first image of every report, of which
    about one in seven is lateral; auto: projections where that file is there, else judged."""
    automatic_tags: bool = False
    """Take labels from the automatic tags too."""
    masked: Literal["drop", "keep"] = "drop"
    """The de-identification token XXXX: taken out ("x-XXXX" becomes "x-ray"), or kept."""
    min_characters: int = 8
    """Shortest impression."""
    val: float = 0.05
    """Part of the reports that is for validation."""
    fidelity: float = 0.15
    """Part of the reports that is held out as real images for fidelity."""
    seed: int = 0
    """Of the split."""

    def __post_init__(self) -> None:
        if self.val < 0 or self.fidelity < 0 or self.val + self.fidelity >= 1:
            raise UserError(
                "open-i: val and fidelity must not be negative, and together below 1, so that training has images."
            )


@dataclass(frozen=True)
class _Image:
    """An image of a report; ``place`` counts from 0 within the report."""

    name: str
    place: int
    report: Report
    impression: str


def read(root: Path, options: OpenIOptions | None = None) -> Reading:
    """The cohort below ``root``.

    Raises:
        UserError: no reports or no images there, or they are damaged.
    """
    options, root = options or OpenIOptions(), Path(root)
    source, reports, rejected = read_reports(root, options.reports)
    folder, files = image_files(root, options.images)
    views, frontal = frontal_names(root, options.views)
    funnel = Funnel()
    sieve = Sieve(_images(reports, frontal, options.masked), lambda image: image.name, funnel)
    sieve.unique("repeated image", lambda image: image.name)
    if frontal is None:
        sieve.apply(
            "not the first image of its report", lambda image: f"image {image.place + 1}" if image.place else None
        )
    else:
        sieve.apply("not known to be frontal", lambda image: None if image.name in frontal else f"by {views}")
    sieve.apply("no image file", lambda image: None if image.name in files else f"not in {folder or root}")
    sieve.apply("no impression", lambda image: None if image.impression else f"report {image.report.uid}")
    sieve.apply(
        f"impression shorter than {options.min_characters} characters",
        lambda image: None if len(image.impression) >= options.min_characters else image.impression,
    )
    records = [_record(image, f"{folder}{files[image.name]}", options) for image in sieve.items]
    records.sort(key=lambda record: record.key)
    facts = {
        "counts": {"reports": len(reports), **Counter(record.split for record in records)},
        "labels": dict(sorted(Counter(label for record in records for label in record.labels).items())),
        "views_by": views,
        "reports_removed": dict(sorted(Counter(one.rule for one in rejected).items())),
        "files": [source],
    }
    return Reading("open-i", root, records, funnel, [*rejected, *sieve.rejected], asdict(options) | facts)


def labels_of(headings: Iterable[str], automatic: Iterable[str] = ()) -> tuple[str, ...]:
    """Labels of a report among the eight findings and "No Finding".

    Args:
        headings: MeSH headings, "Opacity/lung/base/left"; the first part says what, the others where and how.
        automatic: tags to use as well.

    Returns:
        the findings, or "No Finding" where the only heading is "normal", or () for a report with something else (scoliosis)
        or that nobody has indexed.
    """
    headings = [heading.strip().lower() for heading in headings]
    found = set()
    for heading in [*headings, *(tag.strip().lower() for tag in automatic)]:
        what, *details = (part.strip() for part in heading.split("/"))
        if _DENIED.search(heading):
            continue
        for label, words in _LABEL.items():
            if words.search(what) and not (label == "Lung Opacity" and _elsewhere(details)):
                found.add(label)
        if what == "cardiac shadow" and "enlarged" in details:
            found.add("Cardiomegaly")
    if found:
        return tuple(label for label in FINDINGS if label in found)
    return (NO_FINDING,) if headings == ["normal"] else ()


def clean_impression(text: str, masked: str = "drop") -> str:
    """One line, with or without XXXX; "" where it says nothing ("None.", "XXXX.")."""
    line = one_line(text)
    line = drop_masked(line) if masked == "drop" else line
    return "" if says_nothing(line.replace("XXXX", "")) else line


def split_of(uid: str, options: OpenIOptions) -> str:
    """The split of a report: a draw of its own, so that other reports do not change it."""
    draw = generator(options.seed, "open-i", "split", uid).random()
    return "val" if draw < options.val else "fidelity" if draw < options.val + options.fidelity else "train"


def _elsewhere(details: list[str]) -> bool:
    return "lung" not in details and not _ELSEWHERE.isdisjoint(details)


def _images(reports: Iterable[Report], frontal: dict[str, str] | None, masked: str) -> list[_Image]:
    """Images named by the reports, then those that only the projections name (Kaggle's reports name none)."""
    images, by_uid, named = [], {}, set()
    for report in reports:
        impression = clean_impression(report.impression, masked)
        by_uid[report.uid] = (report, impression)
        for place, name in enumerate(report.images):
            images.append(_Image(image_id(name), place, report, impression))
            named.add(image_id(name))
    for name, uid in (frontal or {}).items():
        if name not in named and uid in by_uid and not by_uid[uid][0].images:
            images.append(_Image(name, 0, *by_uid[uid]))
    return images


def _record(image: _Image, path: str, options: OpenIOptions) -> Record:
    report = image.report
    automatic = report.automatic if options.automatic_tags else ()
    return Record(
        key=f"CXR{image.name}",
        path=path,
        split=split_of(report.uid, options),
        patient_id=report.uid,
        impression=image.impression,
        labels=labels_of(report.headings, automatic),
        view="frontal",
        attributes={"headings": list(report.headings)},
    )
