"""What tests of cohort readers share: what a reading holds, and where real data lie (beside the checkout, not in it)."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from meddiff.preparation.records import Reading, Record

SHARED = Path(__file__).parents[3] / "shared" / "data"


def carried(name: str) -> Path:
    """A file of real data that torchxrayvision carries; skips the test where it is not installed."""
    spec = find_spec("torchxrayvision")
    places = spec.submodule_search_locations if spec else None
    path = Path(places[0]) / "data" / name if places else None
    if path is None or not path.is_file():
        pytest.skip(f"torchxrayvision, which carries {name}, is not installed")
    return path


def rules(reading: Reading) -> dict[str, list[str]]:
    """Rule -> the items it took, in the order of ``rejected.csv``."""
    out: dict[str, list[str]] = {}
    for one in reading.rejected:
        out.setdefault(one.rule, []).append(one.item)
    return out


def rule_of(reading: Reading) -> dict[str, str]:
    """Item that was left out -> the rule that took it."""
    return {one.item: one.rule for one in reading.rejected}


def by_key(reading: Reading) -> dict[str, Record]:
    """Key -> record."""
    return {record.key: record for record in reading.records}


def split_of(reading: Reading) -> dict[str, str]:
    """Key -> split."""
    return {record.key: record.split for record in reading.records}


def splits_of_patients(reading: Reading) -> dict[str, set[str]]:
    """Patient -> the splits of their images; a sound reading has one for each."""
    out: dict[str, set[str]] = {}
    for record in reading.records:
        out.setdefault(record.patient_id, set()).add(record.split)
    return out


def only(reading: Reading) -> Record:
    """The one record of a reading."""
    (record,) = reading.records
    return record
