"""Train under a SLURM of one node, let its time run out, and compare with a training that nobody stopped. Source: own.

::

    apt-get install slurmd slurmctld munge
    python tools/slurm_proof.py -c CONFIG --out /tmp/proof

Starts ``munged``, ``slurmctld`` and ``slurmd`` for itself (as root; nothing of the machine's own SLURM is touched), submits
``tools/train.sbatch`` with a time limit of two minutes and two processes, and waits until the job has gone through the queue as
often as it needs. The configuration must train for a minute or more (about 60 s pass before SLURM's signal; some 20 of them
are the start) on two CPU processes and write a checkpoint rarely. Exit code 0: the job was requeued by the signal at
least once, wrote one run folder under one W&B id, and its weights, optimiser, averages, position and every logged row are
the same bits as those of the same two processes that nobody stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools.kill_and_resume import PARTS, differences, rows  # noqa: E402

PATIENCE = 1800.0
CONF = """
ClusterName=proof
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.sock,cred_expire=10
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
ReturnToService=2
MpiDefault=none
KillWait=20
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def one_node(place: Path) -> Iterator[None]:
    """A SLURM of this machine alone; its files lie in ``place``."""
    for name in ("state", "spool"):
        (place / name).mkdir(parents=True)
    place.chmod(0o755)
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (place / "slurm.conf").write_text(CONF.format(place=place, cores=os.cpu_count()))
    os.environ["SLURM_CONF"] = str(place / "slurm.conf")
    files = {
        "key-file": key,
        "socket": "munge.sock",
        "pid-file": "munge.pid",
        "log-file": "munge.log",
        "seed-file": "seed",
    }
    munge = ["munged", "--force", *(f"--{option}={place / name}" for option, name in files.items())]
    for command in (munge, ["slurmctld", "-c"], ["slurmd", "-N", "localhost"]):
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["scancel", "--signal=KILL", "--state=RUNNING"], check=False)
        for name in ("slurmd", "slurmctld", "munge"):
            file = place / f"{name}.pid"
            if file.is_file():
                os.kill(int(file.read_text()), 15)


def shown(job: str) -> dict[str, str]:
    """What the controller says of a job."""
    answer = subprocess.run(["scontrol", "show", "job", job, "--oneliner"], capture_output=True, text=True, check=True)
    return dict(part.split("=", 1) for part in answer.stdout.split() if "=" in part)


def said(log: Path) -> str:
    """The output of a job; a process that was ended may have cut a character."""
    return log.read_text(encoding="utf-8", errors="replace")


def through_the_queue(arguments: list[str], log: Path) -> int:
    """Submit, and wait for the end: how often the job was requeued."""
    command = [
        "sbatch",
        "--parsable",
        "--nodes=1",
        "--ntasks-per-node=2",
        "--cpus-per-task=1",
        "--time=2",
        "--gpus-per-node=0",
    ]
    command += [
        "--signal=SIGUSR1@30",
        f"--output={log}",
        f"--chdir={ROOT}",
        str(ROOT / "tools" / "train.sbatch"),
        *arguments,
    ]
    job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    begin, before = time.monotonic(), ""
    while time.monotonic() < begin + PATIENCE:
        found = shown(job)
        line = f"job {job}: {found['JobState']}, requeued {found['Restarts']} times"
        if line != before:
            print(f"{time.monotonic() - begin:6.0f} s  {line}", flush=True)
        before = line
        if found["JobState"] == "PENDING" and int(found["Restarts"]):  # a requeued job would wait for two minutes
            subprocess.run(
                ["scontrol", "update", f"jobid={job}", "starttime=now"], check=False, stderr=subprocess.DEVNULL
            )
        if found["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
            if found["JobState"] != "COMPLETED":
                raise SystemExit(f"the job ended as {found['JobState']}:\n{said(log)[-4000:]}")
            return int(found["Restarts"])
        time.sleep(2)
    raise SystemExit(f"the job was not done after {PATIENCE:.0f} s:\n{said(log)[-4000:]}")


def main() -> int:
    """Run it; exit code 0 if all is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True, help="of the training")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and logs; must not exist")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True)
    os.environ |= {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    arguments = ["-c", str(Path(options.config).resolve()), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    with (out / "whole.log").open("wb") as log:
        whole = ["--name", "proof", "--runs", str(out / "whole")]
        command = [sys.executable, "-m", "meddiff", "fit", *arguments, *whole]
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True)
    with one_node(out / "slurm"):
        queued = ["--name", "proof", "--runs", str(out / "queued")]
        restarts = through_the_queue([*arguments, *queued], out / "job.log")
    (a,), (b,) = ((out / name / "proof").iterdir() for name in ("whole", "queued"))
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (a, b))
    found = [one for part in PARTS if part in first for one in differences(first[part], second.get(part), part)]
    found += [] if rows(a) == rows(b) else ["metrics.jsonl"]
    ids = {file.name.rsplit("-", 1)[-1] for file in b.glob("wandb/offline-run-*")}
    print(f"requeued {restarts} times; run folder {b.name}; W&B ids {sorted(ids)}; {len(rows(b))} rows")
    if restarts < 1 or len(ids) > 1 or "is back in the queue" not in said(out / "job.log"):
        found.append("the signal, or its requeueing, or the W&B id")
    print("bit-identical" if not found else f"different: {', '.join(found[:10])}")
    print(json.dumps({"restarts": restarts, "rows": len(rows(b)), "different": found[:10]}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
