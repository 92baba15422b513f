"""Which process this is: of several that run one command together, one speaks, makes folders and holds locks. Source: own."""

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

#: What torchrun, SLURM, Lightning's own launcher and a user on several machines say.
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")


def is_first_process() -> bool:
    """Whether this is rank 0 of all processes of one command; also before a Trainer knows of any."""
    return all((os.environ.get(name) or "0") == "0" for name in RANKS)


@dataclass(frozen=True)
class Process:
    """A process that can be told from a later one with the same number.

    Attributes:
        host: name of the machine.
        pid: its number there.
        started: when it began, in the kernel's own count since the machine was switched on, with the machine's name for
            that time; "" where the system does not say.
        since: when it took what it holds, UTC.
        doing: what for, in a few words.
    """

    host: str
    pid: int
    started: str
    since: str
    doing: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def is_gone(self) -> bool:
        """Whether it certainly does not run any more; of another machine nobody here can say."""
        if self.host != socket.gethostname():
            return False
        return started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.doing}, since {self.since})"


def started(pid: int) -> str | None:
    """When a process of this machine began (``BOOT:TICKS``); None where there is none of that number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        try:
            os.kill(pid, 0)  # a system without /proc: only that it runs is known
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    except OSError:
        return None
    # The name of a program stands in parentheses and may hold blanks; the time of the start is field 22.
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"
