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

#: By which SLURM says that a job's time is nearly up (``#SBATCH --signal=SIGUSR1@300``): what Lightning waits for, too.
TIME_IS_UP = getattr(signal, "SIGUSR1", None)
_early: list[int] = []

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
def early_signal_noted() -> Iterator[None]:
    """Within a job of SLURM's: that its time is up, told before anybody heeds it, is noted instead of ending the process.

    Reading torch, making a cohort and a first evaluation may take longer than a short job lasts. Who heeds the signal asks
    :func:`early_signal` when he begins to.
    """
    asked_for = TIME_IS_UP is not None and "SLURM_JOB_ID" in os.environ
    if not asked_for or threading.current_thread() is not threading.main_thread():
        yield
        return
    assert TIME_IS_UP is not None
    before = signal.getsignal(TIME_IS_UP)
    if before is signal.SIG_DFL:
        signal.signal(TIME_IS_UP, lambda signum, frame: _early.append(signum))
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(TIME_IS_UP, before)
        _early.clear()


def early_signal() -> int:
    """The signal that was noted, 0 for none; it is told once."""
    found = _early[0] if _early else 0
    _early.clear()
    return found


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
