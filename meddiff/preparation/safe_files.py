"""Files below a root and nowhere else: no "..", no absolute path, no link that leads out. Source: own."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from meddiff.common.errors import UserError
from meddiff.common.outside import check_relative, inside
from meddiff.common.text_files import check_file

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Bytes of a table as it lies on the disk; the annotations of MS-COCO have half of it.
LARGEST = 2**30


def open_text(root: str | Path, name: str) -> IO[str]:
    """Open a text file below the root: UTF-8 with or without mark, newlines as they are, as ``csv`` wants them.

    ``NAME.gz`` is unpacked, and so is ``NAME.zip`` when it holds one file.

    Raises:
        UserError: outside the root, not there, no file, larger than a gigabyte, or a zip of none or several files.
    """
    path = inside(root, name)
    check_file(path, LARGEST)
    try:
        if name.endswith(".gz"):
            return _text_of(gzip.open(path, "rb"), path)
        if name.endswith(".zip"):
            return _only_member(path)
        return path.open(encoding="utf-8-sig", newline="")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(f"{root} holds no file {name}: check --root, or download it again.") from None
    except (zipfile.BadZipFile, PermissionError) as error:
        raise UserError(f"{path} cannot be opened ({error}): download it again or check its permissions.") from None


def _only_member(path: Path) -> IO[str]:
    archive = zipfile.ZipFile(path)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise UserError(f"{path} holds {len(members)} files where one is expected: unpack it beside the others.")
    check_relative(members[0].filename)
    return _text_of(archive.open(members[0]), path)


def _text_of(packed: "IO[bytes] | gzip.GzipFile", path: Path) -> IO[str]:
    stream = io.BufferedReader(_Unpacked(packed, path), 2**16)
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


class _Unpacked(io.RawIOBase):
    """What a packed file holds, up to the size of one that is not packed: a few megabytes may stand for any number of bytes."""

    def __init__(self, packed: "IO[bytes] | gzip.GzipFile", path: Path) -> None:
        super().__init__()
        self._packed, self._path, self._read = packed, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)
        data = self._packed.read(len(view))
        self._read += len(data)
        if self._read > LARGEST:
            raise UserError(
                f"{self._path} holds more than {LARGEST:,} bytes once it is unpacked: is it the right file?"
            )
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._packed.close()
        super().close()
