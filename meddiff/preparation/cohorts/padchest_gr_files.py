"""The files of PadChest-GR: its grounded reports (JSON), its master table (csv), and where its images lie.

What has another form than the official files is refused here, with its file, entry and key; what has the form and cannot be
used is left out by the rules of :mod:`meddiff.preparation.cohorts.padchest_gr`.
Source: de Castro et al. 2025, arXiv 2411.05085 (what is in the files); spec/evaluation_beyond.md section 10 (keys and columns).
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.outside import inside
from meddiff.preparation.cells import NotText, identifier
from meddiff.preparation.reports_text import one_line
from meddiff.preparation.rows import find_file, read_rows
from meddiff.preparation.safe_files import open_text

PADCHEST_GR = "PadChest-GR (bimcv.cipf.es/bimcv-projects/padchest-gr, on request)"
REPORTS = (
    "grounded_reports_20240819.json",
    "grounded_reports_*.json",
    "grounded_reports_*.json.gz",
    "grounded_reports_*.json.zip",
)
TABLE = ("master_table.csv", "master_table.csv.gz", "master_table.csv.zip")
#: Folders of images, the official one first.
FOLDERS = ("Padchest_GR_files/PadChest_GR", "PadChest_GR", "Padchest_GR_files", "images_grounding", "images")
#: Split as written in the table -> split here; the test set is what words are grounded on.
SPLITS = {"train": "train", "validation": "val", "test": "grounding"}
#: x1, y1, x2, y2 in parts of the image's width and height.
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sentence:
    """One sentence of a report.

    Attributes:
        place: where it stands in the file, "entry 3, finding 2".
        abnormal: it says that something is there; else it denies it.
        labels: of PadChest, as written.
        first, second: boxes of the two readers.
    """

    place: str
    text: str
    abnormal: bool
    labels: tuple[str, ...]
    first: tuple[Corners, ...]
    second: tuple[Corners, ...]
    locations: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One image with its report; ``place`` as of :class:`Sentence`."""

    place: str
    image: str
    name: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Listed:
    """What the master table says of an image; ``split`` is one of :data:`SPLITS`' values."""

    split: str
    patient: str
    sex: str


def read_reports(root: Path, name: str) -> list[Study]:
    """The studies of ``grounded_reports_*.json`` in the order of the file.

    Raises:
        UserError: no JSON, or another form than the official file has: which entry and which key.
    """
    try:
        with open_text(root, name) as stream:
            studies = parse_json(stream.read())
    except (ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
        raise UserError(f"{name} is not JSON that can be read to its end ({error}): download it again.") from error
    if not isinstance(studies, list) or not studies:
        raise UserError(f"{name} holds no list of studies: it is not the official file of PadChest-GR.")
    return [_study(value, f"entry {number}", name) for number, value in enumerate(studies, 1)]


def _study(value: object, place: str, file: str) -> Study:
    entry = _object(value, place, file)
    found = entry.get("findings")
    if not isinstance(found, list):
        raise _wrong(file, place, "findings", found, "a list of sentences")
    sentences = (_sentence(one, f"{place}, finding {number}", file) for number, one in enumerate(found, 1))
    return Study(
        place, _text(entry, "ImageID", place, file), _text(entry, "StudyID", place, file, ""), tuple(sentences)
    )


def _sentence(value: object, place: str, file: str) -> Sentence:
    one = _object(value, place, file)
    abnormal = one.get("abnormal")
    if not isinstance(abnormal, bool):
        raise _wrong(file, place, "abnormal", abnormal, "true or false")
    return Sentence(
        place,
        one_line(_text(one, "sentence_en", place, file, "")),
        abnormal,
        _names(one, "labels", place, file),
        _boxes(one, "boxes", place, file),
        _boxes(one, "extra_boxes", place, file),
        _names(one, "locations", place, file),
    )


def _object(value: object, place: str, file: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise UserError(f"{file}, {place} is {value!r:.60} and no object with keys: download the file again.")
    return value


def _text(entry: Mapping[str, object], key: str, place: str, file: str, default: str | None = None) -> str:
    value = entry.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise _wrong(file, place, key, value, "a text")
    return value.strip()


def _names(entry: Mapping[str, object], key: str, place: str, file: str) -> tuple[str, ...]:
    """Names without those said twice; a sentence that denies something often has no such key."""
    value = entry.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _wrong(file, place, key, value, "a list of texts")
    return tuple(dict.fromkeys(name for one in value if (name := " ".join(one.lower().split()))))


def _boxes(entry: Mapping[str, object], key: str, place: str, file: str) -> tuple[Corners, ...]:
    value = entry.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _wrong(file, place, key, value, "a list of boxes")
    for number, box in enumerate(value, 1):
        fine = isinstance(box, list) and len(box) == 4 and all(_is_number(one) for one in box)
        if not fine:
            raise _wrong(file, place, f"{key}, box {number}", box, "[x1, y1, x2, y2] in parts of the image")
    return tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _wrong(file: str, place: str, key: str, value: object, right: str) -> UserError:
    said = "is not there" if value is None else f"is {value!r:.60}"
    return UserError(
        f"{file}, {place}, key {key!r} {said}; it must be {right}: correct the entry or download the file again."
    )


def read_table(root: Path, name: str) -> dict[str, Listed]:
    """Image -> its split and patient; the table has a row for each sentence of an image.

    Raises:
        UserError: no official table, a split that is none, or an image in two splits or of two patients.
    """
    found: dict[str, tuple[Listed, int]] = {}
    for line, row in enumerate(read_rows(root, name, ("ImageID", "split")), 2):
        split, image = row["split"], row["ImageID"]
        if split not in SPLITS:
            raise UserError(
                f"{name}, row {line}, column 'split' is {split!r}; it must be one of {', '.join(SPLITS)}: correct the row or "
                "download the table again."
            )
        try:
            patient = identifier(row.get("PatientID", ""), "PatientID")
        except NotText as error:
            raise UserError(f"{name}, row {line}: {error}; download the table again.") from None
        one = Listed(SPLITS[split], patient, row.get("PatientSex_DICOM", ""))
        before, at = found.setdefault(image, (one, line))
        if (before.split, before.patient) != (one.split, one.patient):
            raise UserError(
                f"{name}, row {line} puts {image!r} into another split or to another patient than row {at}: correct one of "
                "the rows or download the table again."
            )
    return {image: listed for image, (listed, _) in found.items()}


def images_folder(root: Path, named: str, images: Iterable[str]) -> str:
    """The folder of the images relative to the root: the first known one that holds any of ``images``.

    Args:
        named: by the user; "" looks for it.

    Raises:
        UserError: there is none; what to do about an archive that is still packed.
    """
    known = set(images)
    patterns = [f"{depth}{name}" for depth in ("", "*/") for name in FOLDERS]
    folders = [inside(root, named)] if named else [one for pattern in patterns for one in sorted(root.glob(pattern))]
    for folder in folders:
        if folder.is_dir() and any(one.name in known for one in folder.iterdir()):
            return folder.relative_to(root).as_posix()
    if packed := find_file(root, ["PadChest_GR.zip", "PadChest_GR.zip.001"]):
        raise UserError(
            f"{root} holds no images but {packed}: put its parts together in the order of their numbers (cat), unpack the zip "
            f"into {FOLDERS[0]} and run the same command again."
        )
    raise UserError(
        f"{root} holds no folder with images such as {min(known, default='IMAGE.png')!r} ({named or ', '.join(FOLDERS)}): "
        f"unpack them there or name their folder with --images; they come from {PADCHEST_GR}."
    )
