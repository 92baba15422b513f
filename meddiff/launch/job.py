"""One run of a sweep as a process: started, told to stop, found again after its runner was killed, and judged. Source: own.

Whether it runs is told by a lock that the process inherits (``flock``): it is held as long as any process of the run lives,
whoever started it. On a file system without locks the number and the birth of the process tell it.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.locks import try_lock
from meddiff.common.outside import file_in
from meddiff.common.processes import started
from meddiff.launch.objective import Measured
from meddiff.launch.record import FAILED, FINISHED, INTERRUPTED, STOPPED, RunRecord
from meddiff.runs import names

#: Folder of logs, parameter files and locks, one of each a run.
JOBS = "jobs"
#: Seconds between SIGTERM and SIGKILL.
GRACE_S = 30.0
#: Lines of its log that are kept of a run that failed.
LINES = 20
#: Who was ended by these was stopped, and can go on.
STOPPING = (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT)
#: How a run says that the disk is full; and the room below which one that says nothing is taken to have had none.
NO_ROOM = ("No room to write", os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
LEAST_ROOM = 2**20


@dataclass(frozen=True)
class Place:
    """Where the files of one run lie.

    Args:
        sweep: folder of the sweep.
        folder: name of the run's folder in it.
    """

    sweep: Path
    folder: str

    @property
    def run(self) -> Path:
        """The run folder."""
        return file_in(self.sweep, self.folder)

    @property
    def log(self) -> Path:
        return self._beside("log")

    @property
    def parameters(self) -> Path:
        return self._beside("yaml")

    @property
    def json(self) -> Path:
        return self._beside("json")

    @property
    def lock(self) -> Path:
        return self._beside("lock")

    @property
    def finished(self) -> bool:
        """Whether the run has said that it ended as it should."""
        return (self.run / names.FINISHED).is_file()

    def _beside(self, suffix: str) -> Path:
        return file_in(self.sweep / JOBS, f"{self.folder}.{suffix}")


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, to be handed to the process; None where another one has it.

    On a file system without locks it holds nothing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        free = try_lock(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    if free is False:
        os.close(descriptor)
        return None
    return descriptor


def is_alive(place: Place, record: RunRecord) -> bool:
    """Whether a process of the run lives, whoever started it.

    Where there are locks only they count: a process that nobody has waited for (there are containers in which nobody does)
    still has its number, but no lock.
    """
    if not place.lock.exists():
        return False
    descriptor = os.open(place.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        free = try_lock(descriptor)
    finally:
        os.close(descriptor)
    return bool(record.pid) and started(record.pid) == record.began if free is None else not free


class Job:
    """A run that is under way.

    Args:
        record: of the run.
        place: of its files.
        process: the child; None of one that a killed runner left.
    """

    def __init__(self, record: RunRecord, place: Place, process: "subprocess.Popen[bytes] | None" = None) -> None:
        self.record, self.place, self.process = record, place, process
        self.measured = Measured(place.run)
        self.began = time.monotonic()
        self._asked: float | None = None
        self._killed = False

    @property
    def adopted(self) -> bool:
        return self.process is None

    def ended(self) -> bool:
        """Whether it has ended; kills it when it was asked to stop and has not for half a minute."""
        if self._asked is not None and not self._killed and time.monotonic() > self._asked + GRACE_S:
            self.kill()
        return not is_alive(self.place, self.record) if self.process is None else self.process.poll() is not None

    def ask_to_stop(self) -> None:
        """SIGTERM to it and its children, once."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and its children."""
        self._killed = True
        self._signal(signal.SIGKILL)

    @property
    def asked(self) -> bool:
        """Whether it was asked to stop."""
        return self._asked is not None

    @property
    def can_be_asked(self) -> bool:
        """Whether its number is known; not where a runner was killed in the moment between a start and its record."""
        return self.process is not None or bool(self.record.pid)

    def _signal(self, signum: int) -> None:
        pid = self.process.pid if self.process is not None else self.record.pid
        if self.process is not None and self.process.poll() is not None:
            return
        # a number that was given to another process meanwhile is not ours
        if pid and (self.process is not None or started(pid) == self.record.began):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signum)


def launch(argv: Sequence[str], environment: Mapping[str, str], place: Place, lock: int) -> "subprocess.Popen[bytes]":
    """Start the process of a run, in a group of its own (so that Ctrl-C reaches the runner alone), its output in the log.

    Raises:
        OSError: there is no such program, or no room.
    """
    with place.log.open("ab") as log:
        return subprocess.Popen(
            list(argv),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=[lock],
        )


@dataclass(frozen=True)
class End:
    """How a run has ended.

    Attributes:
        state: finished, failed, interrupted or stopped.
        reason: in a few words; "" of a finished one.
        last_lines: of its log, of a failed one.
        no_room: the disk was full.
    """

    state: str
    reason: str = ""
    last_lines: tuple[str, ...] = ()
    no_room: bool = False


def judge(job: Job) -> End:
    """What became of a run that has ended: its mark counts, an exit code of 0 says nothing."""
    code = job.process.returncode if job.process is not None else None
    if job.place.finished:
        return End(FINISHED)
    if job.record.stopped_by:
        return End(STOPPED, job.record.stopped_by)
    lines = last_lines(job.place.log)
    said = told(lines)
    if code not in (0, None) and (any(text in said for text in NO_ROOM) or room(job.place.sweep) < LEAST_ROOM):
        return End(INTERRUPTED, f"no room on the disk: {said}", no_room=True)
    if code is None:
        return End(INTERRUPTED, "it ended after its runner had been killed")
    if code == 0:
        return End(INTERRUPTED, f"exit code 0, but no {names.FINISHED}")
    signum = -code if code < 0 else code - 128
    if job.asked or signum in map(int, STOPPING):
        return End(INTERRUPTED, ended_by(code))
    return End(FAILED, f"{ended_by(code)}: {said}" if said else ended_by(code), tuple(lines))


def ended_by(code: int) -> str:
    """An exit code in words.

    Example:
        >>> ended_by(2), ended_by(-9), ended_by(143)
        ('exit code 2', 'SIGKILL', 'exit code 143')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def last_lines(log: Path) -> list[str]:
    """The last lines of a log; of a bar that was drawn over and over its last state."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 2**15))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    drawn = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    # a refusal that follows a bar stands on its line
    parts = [part for line in drawn for part in re.split(r"(?<=\])(?=error: )", line)]
    return [part for part in parts if part][-LINES:]


def told(lines: Sequence[str]) -> str:
    """The line that says why: the last that begins with ``error:``, else the last."""
    said = [line for line in lines if line.startswith("error:")]
    return (said or list(lines) or [""])[-1].removeprefix("error: ")[:300]


def room(folder: Path) -> int:
    """Bytes that can be written into a folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return LEAST_ROOM
