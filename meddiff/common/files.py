"""Files that are either whole or absent, also after a kill, a full disk or a power cut. Source: own."""

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, overload

from meddiff.common.errors import UserError
from meddiff.common.targets import check_target

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: How the temporary file of `NAME` is called: `.NAME.xxxxxxxx.part`, in the same folder.
PART = ".part"
_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.part", re.DOTALL)
#: Where a file system has no locks, only this age (seconds) tells that nobody writes any more.
_ABANDONED = 24 * 3600.0
#: A name may have 255 bytes; the temporary one is longer by 16.
_LONGEST = 235
#: What the operating system says when there is no room: disk, quota, or a limit on the size of a file.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: Folders this process has already cleared of what killed writers left.
_cleared: set[Path] = set()


@overload
def atomic_open(path: str | os.PathLike[str], mode: Literal["wb"] = "wb") -> AbstractContextManager[IO[bytes]]: ...
@overload
def atomic_open(path: str | os.PathLike[str], mode: Literal["w"]) -> AbstractContextManager[IO[str]]: ...
def atomic_open(
    path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb"
) -> AbstractContextManager[IO[bytes] | IO[str]]:
    """Open a temporary file beside ``path`` and rename it onto ``path`` when the block ends without error.

    File and folder are flushed to the disk, so that also a power cut leaves the old file or the new one. The temporary
    file lies in the same folder (never in ``TMPDIR``) and is removed when the block fails; what a killed writer left is
    removed when a process first writes into the folder.

    Raises:
        NotAFile: a folder, device or pipe stands at ``path``; it is left alone.
        OSError: not writable or full; ``filename`` names ``path``, and what was there before is untouched.
    """
    check_target(Path(path))
    return _renamed_at_the_end(Path(path), mode)


@contextmanager
def _renamed_at_the_end(path: Path, mode: str) -> Iterator[IO[bytes] | IO[str]]:
    make_folder(path.parent)
    if path.parent not in _cleared:
        _cleared.add(path.parent)
        remove_leftovers(path.parent)
    handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            # mkstemp makes the file private; give it the mode an ordinary open() would have.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            if fcntl is not None:
                os.replace(temporary, path)  # while the lock is held: nobody takes it for a leftover
        if fcntl is None:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, locked for as long as it is open: a lock ends with its process, however that ends."""
    stem = path.name.encode()[:_LONGEST].decode(errors="ignore")
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{stem}.", suffix=PART)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # somebody cleared the folder before the lock was there


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files of killed writers from ``folder`` (not below it); files being written stay.

    Returns:
        What was removed.
    """
    removed = []
    for path in sorted(Path(folder).glob(f".*{PART}")):
        with suppress(OSError):
            if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink() and _abandoned(path):
                removed.append(path)
    return removed


def _abandoned(path: Path) -> bool:
    """Whether nobody writes it any more; then it is gone."""
    with path.open("rb+") as stream:
        try:
            if fcntl is None:
                raise OSError(errno.ENOLCK, "no locks")
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            if time.time() - path.stat().st_mtime < _ABANDONED:
                return False
        path.unlink()
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a power cut does not take them back."""
    missing = []
    for one in (folder, *folder.parents):
        if one.exists():
            break
        missing.append(one)
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some network file systems refuse; their renames are as safe as they get
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def no_room(error: OSError) -> UserError | None:
    """The sentence for a full disk; None for another error."""
    if error.errno not in _NO_ROOM:
        return None
    where = f" {error.filename}" if error.filename else ""
    return UserError(
        f"No room to write{where} ({os.strerror(error.errno)}): what was written before is whole; make room and go on "
        "from there."
    )


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write ``value`` as readable, sorted JSON, atomically (so equal values give equal bytes)."""
    with atomic_open(path, "w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, ensure_ascii=False)
        stream.write("\n")
