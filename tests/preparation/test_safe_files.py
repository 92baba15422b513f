"""Tables below a root, packed or not: what they hold, and that a few bytes cannot stand for any number of them."""

import gzip
import zipfile
from pathlib import Path

import pytest

from meddiff.common.errors import UserError
from meddiff.preparation import safe_files

TEXT = "a,b\r\n" + "é,1\r\n" * 30_000  # more than one buffer


def packed(folder: Path, kind: str) -> str:
    name = f"t.csv.{kind}" if kind else "t.csv"
    data = b"\xef\xbb\xbf" + TEXT.encode()
    if kind == "gz":
        (folder / name).write_bytes(gzip.compress(data))
    elif kind == "zip":
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("t.csv", data)
    else:
        (folder / name).write_bytes(data)
    return name


@pytest.mark.parametrize("kind", ["", "gz", "zip"])
def test_the_text_is_the_same_however_it_is_packed(tmp_path: Path, kind: str) -> None:
    with safe_files.open_text(tmp_path, packed(tmp_path, kind)) as stream:
        assert stream.read() == TEXT


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_what_unpacks_to_more_than_a_table_is_refused_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = packed(tmp_path, kind)
    monkeypatch.setattr(safe_files, "LARGEST", len(TEXT) // 2)
    with safe_files.open_text(tmp_path, name) as stream, pytest.raises(UserError, match="once it is unpacked"):
        stream.read()
