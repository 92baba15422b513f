"""Folders beside something precious."""

import itertools
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Gives a fresh folder ``inside`` an example, beside the one that holds the victims."""
    root = tmp_path_factory.mktemp("doors")
    (root / "outside").mkdir()
    (root / "outside" / "victim.tar").write_text("precious")
    numbers = itertools.count()

    def make() -> Path:
        folder = root / f"inside{next(numbers)}"
        folder.mkdir()
        return folder

    yield make
    assert (root / "outside" / "victim.tar").read_text() == "precious"
    assert not list(root.rglob("PWNED"))
    assert not Path("PWNED").exists()
