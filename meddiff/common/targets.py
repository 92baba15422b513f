"""Where something may be written: not over a device, a pipe or a folder. Source: own."""

import os
import stat
from pathlib import Path

from meddiff.common.errors import UserError


class NotAFile(UserError, OSError):
    """Something that is no ordinary file stands where one is to be written.

    Also an :class:`OSError`, so that who can do without the file (a cache) treats it like any other that cannot be written.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path} is {what}, which nothing is written over: {remedy}")
        self.strerror = f"it is {what}"


def check_folder(path: Path) -> None:
    """Refuse a folder to write into that is something else.

    Raises:
        UserError: a file, device or pipe stands there.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path} is no folder: name another one for what is written")


def check_target(path: Path) -> None:
    """Refuse to put a file where a folder, a device, a pipe or a socket stands: as root, renaming would replace it.

    Raises:
        NotAFile: it is one, or a link into ``/dev`` or ``/proc`` (``/dev/stdout``).
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # nothing there, or a path whose own error says more
    if stat.S_ISDIR(mode):
        raise NotAFile(path, "a folder", "name a file")
    # /dev/stdout leads to whatever the output is, an ordinary file too
    if not stat.S_ISREG(mode) or (path.is_symlink() and os.readlink(path).startswith(("/dev/", "/proc/"))):
        raise NotAFile(path, "a device, pipe or socket", "name an ordinary file")
