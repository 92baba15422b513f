"""A sweep of twelve trainings that much happens to: at its end all is there that can be, once. Source: own.

::

    python tools/sweep_acceptance.py --out /dev/shm/sweep -c configs/debug/tiny.yaml --steps 60        # minutes
    python tools/sweep_acceptance.py --out /dev/shm/sweep -c configs/quickstart.yaml --steps 800       # two minutes a run

Two jobs. The runner is killed twice (``kill -9``; its trainings go on and are adopted), one training is killed, one has a
learning rate with which it must fail, and once the disk is full. As root on Linux the sweep lies on a file system of its own,
which is filled; elsewhere the size of a file is limited for a while.

Exit code 0: the last call ended with exit code 1 and a list, eleven trainings have finished, one has failed with its
reason, no settings were run twice, no step was logged twice, only what was interrupted was started again, and the report is
there.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml
from kill_and_resume import MIB, ROOT, file_system

RUNS, FAILING = 12, 4  # the number of the run that must fail
PATIENCE = 3600.0


class Sweep:
    """The sweep and its runner.

    Args:
        out: folder that holds the disk and the cohort.
        file: of the sweep.
        jobs: runs at the same time.
    """

    def __init__(self, out: Path, file: Path, jobs: int) -> None:
        self.out, self.file, self.jobs = out, file, jobs
        self.folder = out / "disk" / "acceptance"
        self.log = out / "runner.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, limit: int | None = None) -> None:
        """Call ``lightning sweep``, the same each time."""

        def limited() -> None:
            import resource

            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "meddiff", "sweep", str(self.file), "--jobs", str(self.jobs),
                 "--runs", str(self.folder.parent)],
                stdout=log, stderr=log, cwd=self.out, start_new_session=True, preexec_fn=limited,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip

    def kill(self) -> None:
        """The runner alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self) -> tuple[int, str]:
        """Until the runner ends: its exit code, and what it said."""
        assert self.process is not None
        return self.process.wait(timeout=PATIENCE), self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something while the runner runs.

        Raises:
            SystemExit: the runner ended before.
        """
        assert self.process is not None
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"waited in vain for {what}:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        print(f"{time.strftime('%X')} {what}", flush=True)

    def events(self) -> list[dict[str, object]]:
        """Lines of the record."""
        record = self.folder / "runs.jsonl"
        return [json.loads(one) for one in record.read_text().splitlines()] if record.is_file() else []

    def ends(self) -> dict[int, str]:
        """How each run ended last."""
        return {int(str(one["number"])): str(one["state"]) for one in self.events() if one["event"] == "ended"}

    def finished(self) -> int:
        return sum(state == "finished" for state in self.ends().values())

    def training(self) -> list[tuple[int, Path]]:
        """(pid, run folder) of the runs that train now, with rows of this start."""
        found = {}
        for one in self.events():
            number = int(str(one["number"]))
            if one["event"] == "started":
                found[number] = (0, self.folder / str(one["folder"]), float(str(one["time"])))
            elif one["event"] == "process":
                found[number] = (int(str(one["pid"])), *found[number][1:])
            elif one["event"] == "ended":
                found.pop(number, None)
        live = []
        for pid, folder, began in found.values():
            metrics = folder / "metrics.jsonl"
            if pid and metrics.is_file() and metrics.stat().st_mtime > began + 1:
                live.append((pid, folder))
        return live


def write_file(out: Path, config: str, steps: int) -> Path:
    """Twelve learning rates over one config; that of the run FAILING is beyond all numbers."""
    rates = [round(1e-3 * (1 + number / 10), 6) for number in range(RUNS)]
    rates[FAILING - 1] = 1e30
    content = {
        "name": "acceptance",
        "method": "grid",
        "metric": {"name": "grounding/macro_cnr", "goal": "maximize"},
        "parameters": {
            "model.learning_rate": {"values": rates},
            "model.stop_after_skipped_steps": {"value": 1},
            "trainer.max_steps": {"value": steps},
            "trainer.val_check_interval": {"value": steps},
        },
        "command": ["lightning", "fit", "-c", config, "${args}"],
    }
    file = out / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def problems(sweep: Sweep, said: str) -> list[str]:
    """What is not as it should be when all is over."""
    found = []
    ends, events = sweep.ends(), sweep.events()
    started = [one for one in events if one["event"] == "started"]
    if Counter(ends.values()) != Counter({"finished": RUNS - 1, "failed": 1}):
        found.append(f"ends: {Counter(ends.values())}")
    if ends.get(FAILING) != "failed":
        found.append(f"run {FAILING} is {ends.get(FAILING)}")
    settings = {int(str(one["number"])): json.dumps(one["parameters"], sort_keys=True) for one in started}
    if len(set(settings.values())) != RUNS or len(settings) != RUNS:
        found.append(f"{len(set(settings.values()))} settings in {len(settings)} runs")
    times = Counter(int(str(one["number"])) for one in started)
    cut = Counter(
        int(str(one["number"])) for one in events if one["event"] == "ended" and one["state"] == "interrupted"
    )
    for number, count in times.items():
        if count > 1 + cut[number]:
            found.append(f"run {number} was started {count} times and interrupted {cut[number]} times")
    for number in settings:
        (folder,) = sweep.folder.glob(f"{number:04d}-*")
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        twice = [step for step, n in Counter(r["step"] for r in rows if "train/loss" in r).items() if n > 1]
        if twice:
            found.append(f"run {number} logged steps {twice[:3]} twice")
        if ends.get(number) == "finished" and not (folder / "finished.json").is_file():
            found.append(f"run {number} has no mark")
    page = sweep.folder / "report.html"
    if not page.is_file() or not page.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        found.append("no report")
    table = (sweep.folder / "rows.csv").read_text().splitlines()
    if len(table) != RUNS + 1:
        found.append(f"{len(table)} lines in rows.csv")
    if "error: 1 of 12 runs failed" not in said or "Traceback" in said:
        found.append("the runner's last words")
    return found


def fill_the_disk(sweep: Sweep, mounted: bool) -> None:
    """One call that finds no room for a checkpoint; what it says, and that it goes on when there is room again."""
    size = max(file.stat().st_size for file in sweep.folder.glob("*/checkpoints/*.ckpt"))
    ballast = sweep.folder.parent / "ballast"
    if mounted:
        with ballast.open("wb") as stream:
            for _ in range(
                (os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize - size // 2) // MIB
            ):
                stream.write(bytes(MIB))
    else:
        sweep.kill()
        for pid, _ in sweep.training():  # they began without the limit
            os.killpg(pid, signal.SIGKILL)
        sweep.start(size // 2)
    code, said = sweep.wait()
    ballast.unlink(missing_ok=True)
    if code != 2 or "room" not in said.splitlines()[-1]:
        raise SystemExit(f"a full disk ended the runner with exit code {code}:\n{said[-3000:]}")
    print(f"{time.strftime('%X')} the disk was full: {said.splitlines()[-1]}", flush=True)


def main() -> int:
    """Run it; exit code 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="configs/debug/tiny.yaml", help="of the trainings")
    parser.add_argument("--steps", type=int, default=60, help="of a training")
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is written; must not exist")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the file system for the sweep")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    out = options.out.resolve()
    begin = time.monotonic()
    with file_system(out / "disk", options.size * MIB) as mounted:
        sweep = Sweep(out, write_file(out, options.config, options.steps), options.jobs)
        sweep.start()
        for number in (1, 5):
            sweep.until(
                lambda n=number: sweep.finished() >= n and bool(sweep.training()), f"{number} finished, others train"
            )
            sweep.kill()
            time.sleep(1)
            sweep.start()
            print(f"{time.strftime('%X')} the runner was killed and started again", flush=True)
            if number == 1:
                sweep.until(lambda: sweep.finished() >= 3 and bool(sweep.training()), "3 finished, others train")
                os.killpg(sweep.training()[-1][0], signal.SIGKILL)
                print(f"{time.strftime('%X')} a training was killed", flush=True)
        sweep.until(lambda: sweep.finished() >= 7 and bool(sweep.training()), "7 finished, others train")
        fill_the_disk(sweep, mounted)
        sweep.start()
        code, said = sweep.wait()
        found = problems(sweep, said) + ([] if code == 1 else [f"exit code {code}"])
        print(said[said.rfind("0001-") :].strip())
    print(f"{time.monotonic() - begin:.0f} s, disk {'mounted' if mounted else 'limited'}")
    print("as it should be" if not found else "wrong: " + "; ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
