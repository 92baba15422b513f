"""A pipe, a device or a folder in the place of an image is left out with its reason; nobody waits for a pipe's writer."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.preparation.cohorts.open_i_files import _xml_files
from meddiff.preparation.images import probe, read_image
from meddiff.preparation.mask_files import read_mask
from meddiff.preparation.pixels import UnreadableImage


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A pipe; whoever opens it after all is let go after some seconds, so that the test fails and does not hang."""
    path = tmp_path / "a.png"
    os.mkfifo(path)
    late = threading.Timer(5, lambda: os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK)))
    late.start()
    yield path
    late.cancel()


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_pipe_is_no_image(read: Callable[[Path], object], pipe: Path) -> None:
    with pytest.raises(UnreadableImage, match="a pipe, not a file"):
        read(pipe)
    with pytest.raises(UnreadableImage, match="a folder, not a file"):
        read(pipe.parent)
    with pytest.raises(UnreadableImage, match="a device, not a file"):
        read(Path("/dev/null"))
    with pytest.raises(UnreadableImage, match="no such file"):
        read(pipe.parent / "none.png")


def test_nor_is_it_when_headers_are_looked_at(pipe: Path) -> None:
    assert probe(pipe) == "a pipe, not a file"
    dicom = pipe.rename(pipe.with_suffix(".dcm"))
    assert probe(dicom) == "a pipe, not a file"


def test_nor_a_report(pipe: Path) -> None:
    pipe.rename(pipe.with_suffix(".xml"))
    with pytest.raises(UserError, match="is a pipe, not a file"):
        list(_xml_files(pipe.parent, "."))
