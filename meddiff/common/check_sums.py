"""Check sums beside files, as ``sha256sum -c`` reads them. Source: own."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

from meddiff.common.files import atomic_open

SUFFIX = ".sha256"
_LINE = re.compile(r"\\?([0-9a-f]{64}) [ *].+")
_CHUNK = 1 << 22


class HashingStream:
    """A write-only stream that hashes and counts what passes, so that a file is never read back for its check sum.

    Args:
        stream: what it passes on to.
        hold_errors: keep the first failure for :meth:`finish` and swallow what comes after it. torch's writer in C++
            must not see a stream that raises while it closes.

    Attributes:
        bytes: written so far.
    """

    def __init__(self, stream: IO[bytes], hold_errors: bool = False) -> None:
        self.stream, self.sha256, self.bytes = stream, hashlib.sha256(), 0
        self._hold = hold_errors
        self._error: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Pass ``data`` on."""
        if self._error is None:
            try:
                self.stream.write(data)
            except (OSError, KeyboardInterrupt) as error:
                if not self._hold:
                    raise
                self._error = error
            self.sha256.update(data)
            self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing: the file is flushed once, at the end."""

    def finish(self) -> str:
        """The check sum in hexadecimal digits.

        Raises:
            OSError: a write failed.
        """
        if self._error is not None:
            raise self._error
        return self.sha256.hexdigest()


def sum_file(file: Path) -> Path:
    """Where the check sum of ``file`` stands: ``NAME.sha256`` beside it."""
    return file.with_name(file.name + SUFFIX)


def write_sum(file: Path, digest: str) -> None:
    """Write the check sum of ``file`` beside it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_sum(folder / "a.ckpt", "0" * 64)
        >>> (folder / "a.ckpt.sha256").read_text().split()[1]
        'a.ckpt'
    """
    name = file.name.replace("\\", "\\\\").replace("\n", "\\n")
    with atomic_open(sum_file(file), "w") as stream:
        stream.write(f"{'' if name == file.name else chr(92)}{digest}  {name}\n")


def read_sum(file: Path) -> str | None:
    """The check sum that stands beside ``file``; None where there is none, "" where it cannot be read as one."""
    beside = sum_file(file)
    if not beside.is_file():
        return None
    match = _LINE.match(beside.read_text(encoding="utf-8", errors="replace"))
    return match[1] if match else ""


def remove_sum(file: Path) -> None:
    """Take the check sum of ``file`` away: before the file itself changes, so that no kill leaves a sum of other bytes."""
    sum_file(file).unlink(missing_ok=True)


def digest_of(file: Path, on_bytes: Callable[[int], object] = lambda count: None) -> str:
    """The check sum of a file, read in pieces.

    Args:
        on_bytes: told the size of each piece, for a progress bar.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
            on_bytes(len(piece))
    return digest.hexdigest()
