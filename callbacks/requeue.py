"""SLURM's time is up: back into the queue, between two steps and with a checkpoint.

Why not Lightning's own handler: it saves from within the signal handler, so in the middle of a step and on processes that the
signal has reached at different moments. Source: own.
"""

import os
import re
import subprocess
import sys

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

#: Seconds that SLURM's controller may take to answer.
ANSWER_S = 60.0


def requeue_signal(trainer: Trainer) -> int | None:
    """By which SLURM says that a job's time is nearly up (``#SBATCH --signal=SIGUSR1@300``); None outside of SLURM."""
    environment = trainer._accelerator_connector.cluster_environment  # the strategy of one device has none
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


def slurm_job() -> str:
    """This job as ``scontrol`` names it: ``17``, or ``17_3`` of an array; "" when SLURM says nothing that could be one."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
    return name if re.fullmatch(r"[0-9]+(_[0-9]+)?", name) else ""


def requeue(trainer: Trainer) -> bool:
    """Put this job back into the queue, after everything is written; SLURM ends its processes then.

    Called by all processes; the first one asks. Whoever submitted the job reads in its output what came of it.

    Returns:
        Whether it was put back (on other processes True).
    """
    if not trainer.is_global_zero:
        return True
    if "wandb" in sys.modules:
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=0)  # SLURM's end would cut its file
    job = slurm_job()
    try:
        asked = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=ANSWER_S, check=False
        )
        trouble = "" if asked.returncode == 0 else asked.stderr.strip() or f"exit code {asked.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = str(error)
    if trouble:
        print(
            f"SLURM did not put job {job} back into the queue ({' '.join(trouble.split())}): submit it again with "
            f"`lightning fit --resume {trainer.default_root_dir}` in the place of its command; the checkpoint is written.",
            file=sys.stderr,
        )
        return False
    print(f"job {job} is back in the queue and goes on from step {trainer.global_step}", file=sys.stderr)
    return True
