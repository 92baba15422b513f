"""The folder of a run that begins: RUNS/NAME/TIME, the same for all its processes. Source: own."""

import os
import time
from pathlib import Path

from meddiff.common.outside import run_name

#: Child processes of DDP, and a run that goes on, find their folder here.
RUN_DIR_VARIABLE = "MEDDIFF_RUN_DIR"


def new_run_folder(runs: str, name: str, verb: str) -> Path:
    """RUNS/NAME/TIME, new for every run, the same for all processes of one run; nothing is written yet.

    Child processes of DDP inherit it through the environment; under SLURM and torchrun, whose processes start
    independently, the job's id takes the place of the time, so that a requeued job finds its folder again.

    Args:
        runs: folder of all run folders.
        name: of this experiment.
        verb: fit, or what else happens to a model: its folder says so.

    Raises:
        UserError: the name, or the job's id, leads out of ``runs``.
    """
    if RUN_DIR_VARIABLE in os.environ:
        return Path(os.environ[RUN_DIR_VARIABLE])
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    stem = f"job-{job}" if job and job != "none" else time.strftime("%Y%m%d-%H%M%S")
    run_name(f"{name}/{stem}")  # a job's id is text from outside, too
    folder = Path(runs) / name / (stem if verb == "fit" else f"{stem}-{verb}")
    attempt = 1
    while not job and folder.exists():
        attempt += 1
        folder = folder.with_name(f"{stem}{'' if verb == 'fit' else '-' + verb}-{attempt}")
    os.environ[RUN_DIR_VARIABLE] = str(folder)
    return folder
