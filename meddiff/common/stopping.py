"""A signal that asks the command to stop: work is left as it can be gone on with, and the exit code says so. Source: own."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        raise Stopped(signum)

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
