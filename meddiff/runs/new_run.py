"""The folder of a run that begins: RUNS/NAME/TIME, made for it, the same for all its processes. Source: own."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meddiff.common.bounded import parse_json
from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.locks import locked
from meddiff.common.outside import run_name
from meddiff.common.processes import is_first_process
from meddiff.common.text_files import read_bytes
from meddiff.runs import names

#: Child processes of DDP, and a run that goes on, find their folder here.
RUN_DIR_VARIABLE = "MEDDIFF_RUN_DIR"
#: How often a run was started before, said by who starts it again (a sweep): it goes on from its newest checkpoint.
RESTART_VARIABLE = "MEDDIFF_RESTART_COUNT"
#: How long processes that were started together wait for the first one to name the folder.
PATIENCE_S = 600.0

#: ``exchange(name)``: the first process says a name, the others get it.
Exchange = Callable[[str | None], str]


@contextmanager
def run_folder(runs: str, name: str, verb: str, arguments: list[str], exchange: Exchange | None) -> Iterator[Path]:
    """RUNS/NAME/TIME, made for this run alone and held as long as it is written; the same for all processes of one run.

    A folder is made, never looked up: of two runs that begin in one second the second gets ``TIME-2``. Child processes of
    DDP inherit it through the environment; where processes are started side by side (torchrun, srun), the first one
    makes it and tells the others. Under SLURM and torchrun the job's id takes the place of the time, and a job that was
    put back into the queue, or restarted by torchrun, finds the folder of the same command again.

    Args:
        runs: folder of all run folders.
        name: of this experiment.
        verb: fit, or what else happens to a model: its folder says so.
        arguments: of the command, by which a requeued job knows its folder among those of its job.
        exchange: how processes that were started side by side agree; None: there is one, or they inherit.

    Raises:
        UserError: the name, or the job's id, leads out of ``runs``.
        Busy: another process writes into the folder of the run that is to go on.
    """
    inherited = os.environ.get(RUN_DIR_VARIABLE)
    if not is_first_process():
        folder = Path(inherited) if inherited else Path(exchange(None)) if exchange else _made(runs, name, verb, [])
        os.environ[RUN_DIR_VARIABLE] = str(folder)
        yield folder
        return
    folder = Path(inherited) if inherited else _made(runs, name, verb, arguments)
    with locked(folder, f"lightning {verb}"):
        if exchange is not None:
            exchange(str(folder))
        os.environ[RUN_DIR_VARIABLE] = str(folder)
        yield folder


def _made(runs: str, name: str, verb: str, arguments: list[str]) -> Path:
    """A folder that was not there before, or that of this command in a job that begins again."""
    job = job_id()
    stem = f"job-{job}" if job else time.strftime("%Y%m%d-%H%M%S")
    stem += "" if verb == "fit" else f"-{verb}"
    run_name(f"{name}/{stem}")  # a job's id is text from outside, too
    parent, attempt = Path(runs) / name, 1
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                if job and restarted() and _command_of(folder) == [verb, *arguments]:
                    return folder
                attempt += 1
                continue
            if job:
                write_json(folder / names.JOB, [verb, *arguments])
            return folder
    except OSError as error:
        raise UserError(f"cannot make a run folder in {parent} ({error.strerror}): choose other --runs.") from error


def _command_of(folder: Path) -> list[str] | None:
    try:
        found = parse_json(read_bytes(folder / names.JOB))
    except (OSError, ValueError, UserError):
        return None
    return [str(one) for one in found] if isinstance(found, list) else None


def job_id() -> str:
    """SLURM's or torchrun's name of this job; "" outside of one."""
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID") or ""
    return "" if job == "none" else job


def restarted() -> bool:
    """Whether the job began before: requeued by SLURM, its processes started again by torchrun, or the run by a sweep."""
    variables = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT", RESTART_VARIABLE)
    counts = (os.environ.get(name) or "0" for name in variables)
    return any(count != "0" for count in counts)


def begin_again(folder: Path) -> None:
    """Take the rows of an earlier start away, when there is no checkpoint to go on from: they are logged again."""
    for name in (names.METRICS, names.TRADEOFF, names.SKIPPED):
        (folder / name).unlink(missing_ok=True)
