"""Progress on a terminal and in a log file: bars, and a line for what has none. Something moves at least every five seconds.

In a terminal a bar is redrawn in its place; where the terminal does not say how wide it is, at :data:`WIDTH`. In a file each
state is a line of its own, without control characters. A thread looks after what is shown: work that says nothing for a while
(weights that are read, a batch that takes long) still has a clock that moves. Source: own.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

#: Columns of a terminal that does not say how many it has (a container's, a recorder's).
WIDTH, ROWS = 100, 24
#: Seconds between two redrawings in a terminal and two lines in a file. A loaded machine makes a second more of the latter.
LIVE, FILE = 0.2, 2.5
#: What runs for a day does not need a line every :data:`FILE` seconds: a line each 200th of the time so far, a minute at most.
SHARE, MOST = 1 / 200, 60.0
#: Seconds between two looks of the thread.
LOOK = 0.5

PLAIN = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
#: Bars of images are told parts of an image, and show whole ones.
IMAGES = "{n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

_shown: list["Bar"] = []
_thread: list[threading.Thread] = []
_guard = threading.Lock()


class Bar(tqdm):
    """tqdm's bar, kept moving by a thread, and lines instead of redrawings where the output is a file.

    Args:
        options: of tqdm. ``plain_format`` is the ``bar_format`` in a file.
    """

    monitor_interval = 0  # the thread below does what tqdm's would

    def __init__(self, *args: Any, plain_format: str = PLAIN, **options: Any) -> None:
        stream = options.get("file") or sys.stderr
        self.mininterval = LIVE
        self.live, self._spoke = is_terminal(stream), time.monotonic()
        self._state: tuple[object, ...] | None = None  # of the last line in a file
        width = columns(stream) if self.live else 120
        options |= {
            "mininterval": LIVE if self.live else FILE,
            "miniters": 0,  # by the clock alone: tqdm's own guess lets a bar stand still when batches become slower
            "ncols": width,
            "dynamic_ncols": self.live and width is None,
            "nrows": None if width is None else ROWS,
        }
        if not self.live:
            # no bar of blocks and no place on a screen
            options |= {"bar_format": plain_format, "position": 0, "ascii": True}
        super().__init__(*args, **options)
        if not self.disable:
            _look_after(self)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw it, or in a file write its line if there is something new to say."""
        if self.live:
            self._spoke = time.monotonic()
            return bool(super().display(msg, pos))
        text, now = str(self) if msg is None else msg, time.monotonic()
        state = (self.n, self.total, self.postfix)
        again = state == self._state and now - self._spoke < self.mininterval
        begins = self.n == self.initial and self.age < FILE  # what is over at once has one line
        if text.strip() and not again and not begins:
            self._state, self._spoke = state, now
            self.mininterval = min(max(FILE, SHARE * self.age), MOST)
            self.fp.write(text.rstrip() + "\n")
            self.fp.flush()
        return True

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return max(0.0, time.time() - self.start_t) if hasattr(self, "start_t") else 0.0

    def clear(self, nolock: bool = False) -> None:
        """Make room for a line of somebody else's; a file has it already."""
        if self.live:
            super().clear(nolock)

    def close(self) -> None:
        """The last state stays: in a file, and in a terminal if nothing stands above it."""
        if getattr(self, "disable", True):
            return
        _leave(self)
        if self.live:
            super().close()
            return
        with self._lock:
            if self.n != self.initial or self._state is not None:
                self.display()
            self.disable = True
            self._decr_instances(self)

    def beat(self, now: float) -> None:
        """Draw it once more if nothing was said for long."""
        if now - self._spoke >= (1.0 if self.live else self.mininterval):
            self.refresh()


def progress_bar(
    total: float, unit: str, title: str, shown: bool = True, done: float = 0, stream: TextIO | None = None
) -> Bar:
    """A bar; nothing where it is not ``shown`` or nothing is left to do.

    In a terminal, below another bar (that of training), it is gone when it has ended.

    Args:
        done: items that are there already; they do not count for the rate.
        stream: stderr by default.
    """
    images = unit == "image"
    return Bar(
        total=total,
        initial=done,
        unit=unit,
        desc=title,
        disable=not (shown and total > done),
        leave=None,
        file=stream or sys.stderr,
        unit_scale=unit == "B",
        plain_format="{desc}: {percentage:3.0f}% " + IMAGES if images else PLAIN,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| " + IMAGES if images else None,
    )


@contextmanager
def doing(what: str, shown: bool = True, stays: bool | None = True) -> Iterator[None]:
    """Say ``what`` is being done while it is done, with a clock: for what cannot say how far it is.

    Args:
        stays: in a terminal the line stays when it is over; None: unless it stands below a bar. A file has it in any case.
    """
    if not shown:
        yield
        return
    if not (live := is_terminal(sys.stderr)):
        print(what, file=sys.stderr, flush=True)
    form = "{desc} [{elapsed}]"
    bar = Bar(total=None, desc=what, bar_format=form, plain_format=form, leave=stays if live else None, file=sys.stderr)
    try:
        yield
    finally:
        bar.close()


def say(text: str) -> None:
    """Print a line on stdout; bars that are shown make room for it."""
    Bar.write(text, file=sys.stdout)
    sys.stdout.flush()


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at it while it is written."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # a stand-in, or closed
        return False


def columns(stream: TextIO) -> int | None:
    """None for a terminal that says how wide it is (it may change), else :data:`WIDTH`."""
    try:
        return None if os.get_terminal_size(stream.fileno()).columns > 0 else WIDTH
    except (OSError, ValueError, AttributeError):
        return WIDTH


def _look_after(bar: Bar) -> None:
    with _guard:
        _shown.append(bar)
        if not _thread:
            _thread.append(threading.Thread(target=_keep_moving, daemon=True, name="progress"))
            _thread[0].start()


def _leave(bar: Bar) -> None:
    with _guard:
        if bar in _shown:
            _shown.remove(bar)


def _keep_moving() -> None:
    """The newest bar beats; the others wait for it. Ends with the last bar."""
    while True:
        time.sleep(LOOK)
        with _guard:
            if not _shown:
                _thread.clear()
                return
            newest = _shown[-1]
        try:
            newest.beat(time.monotonic())
        except (OSError, ValueError):  # whoever looked is gone; the work itself says so when it writes
            _leave(newest)


def _forget() -> None:
    _shown.clear()
    _thread.clear()


atexit.register(_forget)  # a thread that writes while Python ends would be told of as a fatal error
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
