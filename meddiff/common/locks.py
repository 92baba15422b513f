"""One writer for a folder at a time. Source: own.

The lock is the kernel's (``flock`` on ``FOLDER/.lock``), so that it ends with its process however that ends, and of several
who find a dead one's exactly one goes on. Who holds it stands in the file, for the sentence that others get to read. ``flock``
reaches over NFS (Linux, lock service running). On a file system that knows no locks only what stands in the file counts.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.common.processes import Process, started

LOCK = ".lock"
#: What a file system without locks answers.
_UNKNOWN = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
#: Locks of this process: path -> (descriptor, thread, how often it was taken).
_held: dict[str, tuple[int, int, int]] = {}
_guard = threading.Lock()


class Busy(UserError):
    """Another process writes there."""


@contextmanager
def locked(folder: str | os.PathLike[str], doing: str, wait: bool = False, name: str = LOCK) -> Iterator[None]:
    """Hold the lock of ``folder``, which is made when missing and taken away again when nothing came into it.

    A thread that holds it may take it again. A lock whose process is gone is told in one sentence, and taken.

    Args:
        doing: what for, for whom comes second: "lightning prepare".
        wait: who comes second waits, and says so, until the first is done.
        name: of the lock file, where parts of a folder have locks of their own.

    Raises:
        Busy: somebody else holds it (not with ``wait``).
        UserError: nothing can be written there.
    """
    path = Path(folder) / name
    try:
        where = _acquire(path, doing)
        if where is None and wait:
            where = _wait(path, doing)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror or error}): choose another folder.") from error
    if where is None:
        raise Busy(
            f"{folder} is being written by {_holder(path) or 'another process'}: wait for its end, or choose another folder."
        )
    try:
        yield
    finally:
        _release(path, where)
        with suppress(OSError):
            path.parent.rmdir()  # only when nothing was written: a failed call leaves no empty folder


def _acquire(path: Path, doing: str) -> str | None:
    """The name under which the lock is held; None where another holds it."""
    _make(path.parent)
    where, me = str(path.parent.resolve() / path.name), threading.get_ident()
    with _guard:
        if where in _held:
            descriptor, owner, times = _held[where]
            if owner != me:
                return None
            _held[where] = (descriptor, owner, times + 1)
            return where
        taken = _taken(path)
        if taken is None:
            return None
        _held[where] = (taken, me, 1)
        _sign(taken, path, doing)
    return where


def _make(folder: Path) -> None:
    """The folder, also while another process takes it away: `mkdir` finds it there, looks again, and finds nothing."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except FileExistsError:
            if folder.exists():  # a file
                raise


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file without waiting: True it is ours, False another holds it, None this file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return None
    return True


def _taken(path: Path) -> int | None:
    """A descriptor of the locked file that still stands under its name."""
    while True:
        _make(path.parent)  # who released it last may have taken the folder with it
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        try:
            locked_now = try_lock(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if locked_now is False:
            os.close(descriptor)
            return None
        if locked_now is None:
            if (holder := _holder(path)) is not None and not holder.is_gone():
                os.close(descriptor)
                raise Busy(
                    f"{path.parent} is being written by {holder}: wait for its end. (This file system knows no locks: if you "
                    f"know that it has ended, delete {path}.)"
                )
            return descriptor
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last holder took the file away between our opening and locking it


def _sign(descriptor: int, path: Path, doing: str) -> None:
    before = _parse(os.pread(descriptor, 65536, 0))
    if before is not None:
        print(terminal(f"{path.parent} was left by {before}, which has ended: going on there"), file=sys.stderr)
    me = Process(
        socket.gethostname(), os.getpid(), started(os.getpid()) or "", time.strftime("%F %T", time.gmtime()), doing
    )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me.to_json()).encode(), 0)


def _parse(text: bytes) -> Process | None:
    try:
        return Process(**json.loads(text))
    except (ValueError, TypeError):  # empty, or cut by a kill
        return None


def _holder(path: Path) -> Process | None:
    try:
        return _parse(path.read_bytes())
    except OSError:
        return None


def _wait(path: Path, doing: str) -> str:
    from meddiff.common.progress import doing as said

    with said(terminal(f"waiting for {_holder(path) or 'another process'}"), stays=False):
        while (where := _acquire(path, doing)) is None:
            time.sleep(0.2)
    return where


def _release(path: Path, where: str) -> None:
    with _guard:
        descriptor, owner, times = _held.pop(where)
        if times > 1:
            _held[where] = (descriptor, owner, times - 1)
            return
        path.unlink(missing_ok=True)  # while it is locked: who waits for it sees that the file is another one
        os.close(descriptor)


def _forget() -> None:
    """A forked child shares its parent's descriptors: with them open, the lock would outlive a killed parent."""
    global _guard
    _guard = threading.Lock()
    for descriptor, _, _ in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
