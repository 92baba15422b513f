"""What tests of the command watch: the files it opens, and its refusals."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders.cohort_trees import (
    listing,
)
from tests.builders.command import call

#: Files opened while a list is here; Python cannot take an audit hook back.
_opened: list[list[str]] = []


def _note(event: str, values: tuple[object, ...]) -> None:
    if _opened and event in ("open", "os.listdir", "os.scandir") and isinstance(values[0], str):
        _opened[-1].append(str(Path(values[0]).absolute()))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_note)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every file and folder opened during the test."""
    _opened.append([])
    yield _opened[-1]
    _opened.clear()


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys, tmp_path, vae_folder, opened) -> Refused:
    """Runs ``lightning prepare ARGUMENTS``: exit code 2, one line, no image opened, nothing written. Returns the line.

    What is not given is put in: --out, --vae, resolution and processes that are right.
    """

    def run(*given: str) -> str:
        before = listing(tmp_path)
        arguments = [*given]
        for name, value in (("--out", str(tmp_path / "out")), ("--vae", str(vae_folder)), ("--resolution", "64")):
            arguments += [] if name in given else [name, value]
        opened.clear()
        code, out, err = call(capsys, "prepare", *arguments, "--accelerator", "cpu")
        during = list(opened)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert not [path for path in during if path.endswith((".png", ".jpg", ".dcm", ".dicom"))]
        assert listing(tmp_path) == before
        opened[:] = during
        return err

    return run
