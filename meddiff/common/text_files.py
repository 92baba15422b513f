"""Text that a user wrote, on whatever machine. Source: own."""

import errno
import os
import stat
from pathlib import Path

from meddiff.common.errors import UserError

#: Bytes of a text that is read whole: configs, manifests, records. The largest of this suite's own has a tenth of it.
LARGEST = 256 * 2**20
#: What stands where a file is expected.
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def no_file(path: str | os.PathLike[str]) -> str | None:
    """What lies at ``path`` instead of a file, in words; None where a file does, or nothing. It is not opened.

    Example:
        >>> no_file("/dev/null"), no_file("/"), no_file("/not/there")
        ('a device', 'a folder', None)
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # opening it says why
        return None
    return next((words for is_kind, words in _KINDS if is_kind(mode)), None)


def check_file(path: str | os.PathLike[str], largest: int = LARGEST) -> None:
    """Refuse what would never end, or not fit, when it is read.

    Args:
        largest: size in bytes.

    Raises:
        UserError: a folder, pipe or device stands at ``path``, or a file that is larger.
    """
    if (kind := no_file(path)) is not None:
        raise UserError(f"{path} is {kind}, not a file: name a file.")
    try:
        size = os.stat(path).st_size
    except (OSError, ValueError):
        return
    if size > largest:
        raise UserError(
            f"{path} has {size:,} bytes, more than the {largest:,} that are read of such a file: is it the right one?"
        )


def read_bytes(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """The content of a file, which is refused before it is opened if it is none or larger than ``largest`` bytes.

    Raises:
        UserError: a folder, pipe or device stands there, or a larger file.
        OSError: it cannot be read.
    """
    check_file(path, largest)
    try:
        return Path(path).read_bytes()
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def read_text(path: str | os.PathLike[str], largest: int = LARGEST) -> str:
    """The text of a file in UTF-8; a byte order mark at its beginning is no part of the text.

    Args:
        largest: size in bytes.

    Raises:
        UserError: in another encoding, such as the UTF-16 of PowerShell or the Windows-1252 of older editors; not
            readable; no file, or a larger one.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "prompts.txt"
        >>> _ = file.write_bytes(b"\\xef\\xbb\\xbfEffusion.")
        >>> read_text(file)
        'Effusion.'
    """
    try:
        text = read_bytes(path, largest).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path and its permissions.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: save it so.") from None
    if "\0" in text:  # UTF-16 without a mark decodes, and a binary file may
        raise UserError(f"{path} is not text in UTF-8 (it holds zero bytes): save it so.")
    return text
