"""What this process writes, deletes or starts, as Python's own audit events say it.

A hook cannot be removed, so there is one for the whole process, and it looks only while :func:`watched` is entered.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: event -> places of its arguments that are paths (each with the place of the folder descriptor it is relative to)
PATHS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
    "shutil.rmtree": ((0, 1),),
}
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn", "subprocess.Popen")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """What was seen since it began.

    Attributes:
        folders: in which writing and deleting is allowed.
        commands: argument lists whose first is one of these may be started, without a shell.
        seen: a line for everything else.
        started: the argument lists of allowed commands.
    """

    def __init__(self, folders: Iterable[Path], commands: Iterable[str]) -> None:
        self.folders = [os.path.realpath(folder) for folder in folders]
        self.commands = set(commands)
        self.seen: list[str] = []
        self.started: list[list[str]] = []

    def look(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(int(flags) & WRITING)  # type: ignore[call-overload]
            if writes:
                self._place(event, path, None)
        elif event in PATHS:
            for place, relative in PATHS[event]:
                self._place(event, args[place], args[relative] if relative is not None else None)
        elif event in STARTS:
            argv = args[1] if len(args) > 1 else args[0]
            if isinstance(argv, list) and argv and argv[0] in self.commands and args[0] in self.commands:
                self.started.append([str(one) for one in argv])
            else:
                self.seen.append(f"{event} {args!r}")

    def _place(self, event: str, path: object, descriptor: object) -> None:
        if isinstance(path, int):
            return  # a descriptor: the event of its opening was looked at
        text = os.fsdecode(path)  # type: ignore[arg-type]
        if isinstance(descriptor, int) and descriptor >= 0 and not os.path.isabs(text):
            text = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), text)
        # removing, renaming and linking act on the name itself; opening follows it
        head, tail = os.path.split(os.path.abspath(text))
        real = os.path.realpath(text) if event == "open" else os.path.join(os.path.realpath(head), tail)
        if not any(real == folder or real.startswith(folder + os.sep) for folder in self.folders):
            self.seen.append(f"{event} {text!r}")


_watch: list[Watch] = []
_hooked: list[bool] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    if _watch and (event == "open" or event in PATHS or event in STARTS):
        watch = _watch.pop()  # what looking itself does is not looked at
        try:
            watch.look(event, args)
        except Exception as error:
            watch.seen.append(f"{event} {args!r}: {error!r}")  # raising here would change the code that is watched
        finally:
            _watch.append(watch)


@contextmanager
def watched(*folders: Path, commands: Iterable[str] = ()) -> Iterator[Watch]:
    """Look at everything this process does until the end of the block."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    watch = Watch(folders, commands)
    _watch.append(watch)
    try:
        yield watch
    finally:
        _watch.remove(watch)
