"""One process of a training has gone: the others end soon, with one sentence. Source: own.

Whoever waits for it is told by the network (gloo, NCCL between machines), or ended by what started them all (torchrun,
``srun --kill-on-bad-exit``, Lightning's launcher within five seconds). Two things are left to do here: a sentence in the
place of twenty tracebacks, and processes whose launcher is gone itself, which nobody would end.
"""

import os
import sys
import threading
import time

from meddiff.common.errors import UserError
from meddiff.common.outside import shell

#: What gloo, NCCL and torch's store say when a process they speak to is not there any more.
SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "ncclRemoteError",
    "ncclSystemError",
    "failed to recv, got 0 bytes",
    "Timed out waiting",
    "Timeout waiting for key",
)
#: Seconds between two looks, and those in which the network may tell first.
LOOK, GRACE = 2.0, 10.0


def lost_process(error: BaseException, run: str | os.PathLike[str] | None) -> UserError | SystemExit | None:
    """What to raise instead of ``error`` where it says that another process is gone; None where it says something else.

    The first two processes speak, since one of them may be the one that is gone; the others end without a word.

    Args:
        run: the run folder, if there is one yet.
    """
    from torch import distributed

    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if not several or not any(sign in str(error) for sign in SIGNS):
        return None
    return UserError(sentence(run)) if distributed.get_rank() < 2 else SystemExit(2)


def sentence(run: str | os.PathLike[str] | None) -> str:
    """What happened, and how to go on."""
    on = f"go on from its last checkpoint with `lightning fit --resume {shell(run)}`" if run else "start it again"
    return f"Another process of this training has ended (killed, out of memory, or its machine is gone): {on}."


def end_without_launcher(run: str | os.PathLike[str] | None) -> None:
    """In a process that Lightning started: end when the one that started it is gone; elsewhere nothing.

    On one machine NCCL's processes speak through memory, and never learn that one of them is gone.
    """
    others = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")
    if os.environ.get("LOCAL_RANK", "0") == "0" or any(name in os.environ for name in others):
        return
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        time.sleep(GRACE)
        if os.environ["LOCAL_RANK"] == "1":
            print(f"error: {sentence(run)}", file=sys.stderr, flush=True)
        os._exit(2)

    threading.Thread(target=look, name="end-without-launcher", daemon=True).start()
