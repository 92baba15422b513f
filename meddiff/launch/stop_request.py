"""A signal that the runner heeds between two looks at its runs, never in the middle of starting one. Source: own."""

import signal
import threading
import time
from types import FrameType, TracebackType

from meddiff.common.stopping import ASKING, SAME_REQUEST, Stopped


class StopRequest:
    """Within the block SIGINT, SIGTERM and SIGHUP are noted; a signal that is ignored (``nohup``) stays ignored.

    Attributes:
        signum: the first signal; 0 if there was none.
        again: whether there was another one, two seconds later or more.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.again = False
        self._at = 0.0
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGINT, *ASKING):
                if signal.getsignal(one) is not signal.SIG_IGN:
                    self._before[one] = signal.signal(one, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.signum:
            self.signum, self._at = signum, time.monotonic()
        elif time.monotonic() > self._at + SAME_REQUEST:
            self.again = True

    def heed(self) -> None:
        """Stop here, if it was asked for.

        Raises:
            KeyboardInterrupt: by Ctrl-C; :class:`Stopped` by another signal.
        """
        if self.signum:
            raise KeyboardInterrupt if self.signum == signal.SIGINT else Stopped(self.signum)
