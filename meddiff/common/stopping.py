"""A signal that asks the command to stop: work is left as it can be gone on with, and the exit code says so. Source: own."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds within which a signal again is the same request: GNU `timeout` and SLURM send it to the process and its group.
SAME_REQUEST = 2.0

#: What schedulers, `kill`, `docker stop` and closed terminals send. SIGINT has Python's own handler already.
ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """As Ctrl-C, by another signal: what heeds KeyboardInterrupt heeds this.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 + the signal's number, as shells have it.

    Example:
        >>> exit_code(KeyboardInterrupt()), exit_code(Stopped(15))
        (130, 143)
    """
    return 128 + (stop.signum if isinstance(stop, Stopped) else signal.SIGINT)


def kill_now(signum: int) -> None:
    """End this process by the signal, as if it had no handler."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


@contextmanager
def signals_stop() -> Iterator[None]:
    """Within the block the first SIGTERM or SIGHUP raises :class:`Stopped`; a second one ends the process at once.

    A signal that is ignored (``nohup``) stays ignored. Outside of the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not asked:
            asked.append(time.monotonic())
            raise Stopped(signum)
        if time.monotonic() > asked[0] + SAME_REQUEST:
            kill_now(signum)

    before = {one: signal.getsignal(one) for one in ASKING}
    for one, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(one, handler)
