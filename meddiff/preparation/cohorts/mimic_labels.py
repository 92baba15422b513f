"""Labels of MIMIC-CXR-JPG: CheXpert's and NegBio's tables, and the policy for uncertain and blank ones. Source: own."""

from collections.abc import Mapping
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.rows import Row, read_rows

#: Labels of CheXpert and NegBio beside the eight findings of the paper; kept as attributes.
OTHER_LABELS = ("Enlarged Cardiomediastinum", "Fracture", "Lung Lesion", "Pleural Other", "Support Devices")


def labels_of(row: Mapping[str, object], uncertain: str = "drop", unlabelled: str = "none") -> tuple[str, ...]:
    """Labels of a study among the eight findings and "No Finding".

    1 is a label; 0 and blank are none; -1 is none or one (``uncertain``). "No Finding" is a label where its own column
    says so and none of the eight is positive. A study without any certain label has none, or, as in the published code,
    is "No Finding" (``unlabelled="no-finding"``); one whose only certain label is another one (a fracture) has none.

    Args:
        row: column -> value of the label file; {} for a study that is not in it.

    Raises:
        UserError: a value that is none of 1, 0, -1 and blank.
    """
    values = {label: label_value(row, label) for label in (*FINDINGS, NO_FINDING, *OTHER_LABELS)}
    wanted = {1.0, -1.0} if uncertain == "positive" else {1.0}
    positive = tuple(label for label in FINDINGS if values[label] in wanted)
    if positive:
        return positive
    nothing_certain = unlabelled == "no-finding" and not any(value == 1.0 for value in values.values())
    return (NO_FINDING,) if values[NO_FINDING] == 1.0 or nothing_certain else ()


def label_table(root: Path, name: str, studies: set[str]) -> dict[str, Row]:
    """study -> its row, the first where one is repeated."""
    table: dict[str, Row] = {}
    for row in read_rows(root, name, ("study_id", *FINDINGS, NO_FINDING)):
        if row["study_id"] in studies:
            table.setdefault(row["study_id"], row)
    return table


def label_value(row: Mapping[str, object], label: str) -> float | None:
    """1, 0, -1, or None where the cell is blank or missing."""
    text = str(row.get(label) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value not in (1.0, 0.0, -1.0):
        raise UserError(f"study {row.get('study_id')} has {text!r} for {label}; labels are 1, 0, -1 or blank.")
    return value
