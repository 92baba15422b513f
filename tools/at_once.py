"""Start many commands of the suite in one moment and count what came of it.

    python tools/at_once.py --folder FOLDER [--trainings 16 --evaluations 4 --prepares 2]

In FOLDER: one short run first, for the evaluations, on phantoms of its own. Then in one loop, without a pause: trainings that
all want the same phantoms, of which there are none yet; ``lightning prepare phantom`` of the same folder; evaluations of the
first run, each with an --out of its own. Right is: every exit code 0, a run folder for each training with its own rows and its
own checkpoint, one cohort, no lock file left. Prints a line a kind and exits with 1 where something is wrong.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

LIGHTNING = [sys.executable, "-m", "meddiff"]
#: One batch a step, two steps, nothing measured.
TRAIN = [
    "fit",
    "-c",
    "configs/quickstart.yaml",
    "--trainer.max_steps",
    "2",
    "--trainer.val_check_interval",
    "2",
    "--trainer.enable_model_summary",
    "false",
    "--trainer.log_every_n_steps",
    "1",
    "--grounding",
    "null",
    "--fidelity",
    "null",
    "--gallery",
    "null",
    "--tradeoff",
    "null",
    "--checkpoint.every_n_images",
    "16",
    "--data.batch_size",
    "8",
    "--data.eval_batch_size",
    "8",
]
PHANTOMS = {"n": 48, "grounding": 8, "fidelity": 8, "val": 8}
STEPS = 2


def options(prefix: str, **more: int) -> list[str]:
    """The phantoms' options as flags."""
    return [text for name, value in {**PHANTOMS, **more}.items() for text in (f"--{prefix}{name}", str(value))]


def start(folder: Path, number: int, arguments: list[str]) -> tuple[list[str], Path, subprocess.Popen[bytes]]:
    """One command in ``folder``, its words in a file of its own."""
    log = folder / "logs" / f"{number:02d}-{arguments[0]}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    with log.open("wb") as stream:
        return (
            arguments,
            log,
            subprocess.Popen([*LIGHTNING, *arguments], cwd=folder, env=environment, stdout=stream, stderr=stream),
        )


def main() -> int:
    """Run it; 0 when all is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder")
    for name, number in (("trainings", 16), ("evaluations", 4), ("prepares", 2)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    (folder / "logs").mkdir(parents=True)
    train = [*TRAIN, "--runs", "runs", "--data.processes", "1"]
    if given.evaluations:
        first = [*train, "--name", "first", *options("data.phantom.", seed=1)]
        _, log, process = start(folder, 0, first)
        if process.wait():
            print(f"the run to evaluate failed: {log}")
            return 1
    cohort = ["--data.shards", "data/cohort", *options("data.phantom.")]
    run = next(iter(folder.glob("runs/first/*")), folder)
    wanted = [[*train, "--name", "many", *cohort] for _ in range(given.trainings)]
    confounders = ["--confounder", "pacemaker:cardiomegaly:0.7", "--confounder", "tube:pneumothorax:0.7"]
    prepare = ["prepare", "phantom", "--out", "data/cohort", "--processes", "1", *options(""), *confounders]
    wanted += [prepare for _ in range(given.prepares)]
    wanted += [
        ["evaluate", "grounding", "--run", str(run), "--out", f"evaluation-{i}", "--grounding.timesteps", "1"]
        for i in range(given.evaluations)
    ]
    begun = time.monotonic()
    started = [start(folder, number, arguments) for number, arguments in enumerate(wanted, 1)]
    failed = [(arguments[0], log) for arguments, log, process in started if process.wait()]
    print(f"{len(started)} commands in {time.monotonic() - begun:.0f} s, {len(failed)} failed")
    for verb, log in failed:
        print(f"  {verb}: {log.read_text(errors='replace').strip().splitlines()[-1:]} ({log})")
    return 0 if _right(folder, given) and not failed else 1


def _right(folder: Path, given: argparse.Namespace) -> bool:
    runs = sorted(folder.glob("runs/many/*"))
    steps = [
        [
            row["step"]
            for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            if "train/loss" in row
        ]
        for run in runs
    ]
    whole = sum(rows == list(range(STEPS)) for rows in steps)
    saved = sum((run / "checkpoints" / f"step-{STEPS:08d}.ckpt").is_file() for run in runs)
    shards = [path.parent.name for path in folder.glob("data/*/manifest.json")]
    evaluated = len(list(folder.glob("evaluation-*/summary.json")))
    locks = list(folder.rglob("*.lock"))
    cohorts = shards.count("cohort")
    print(f"trainings {given.trainings}: {len(runs)} folders, {whole} with one run's rows, {saved} with its checkpoint")
    print(f"prepares {given.prepares}: {cohorts} cohort; evaluations {given.evaluations}: {evaluated} whole")
    print(f"locks left: {len(locks)}")
    together = given.trainings + given.prepares > 0
    return (
        len(runs) == whole == saved == given.trainings
        and cohorts == int(together)
        and evaluated == given.evaluations
        and not locks
    )


if __name__ == "__main__":
    sys.exit(main())
