"""What several tests of the data modules read."""

import csv

import pytest

from datamodules.prompts import SYNTHETIC


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """The shipped synthetic impressions: label, impression."""
    with SYNTHETIC.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
