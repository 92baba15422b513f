"""Kill a training again and again, go on each time, and compare with one that nobody stopped. Source: own.

::

    python tools/kill_and_resume.py -c CONFIG --out /dev/shm/kills --tmpdir /var/tmp --kills 20

The run folder lies in ``--out``, ``TMPDIR`` in ``--tmpdir``: put them on different file systems. A third of the kills come
while a checkpoint is being written (its temporary file is there), the others at random moments from the start of the
process on. In between one start finds the disk full, and one finds the newest checkpoint cut off. As root on Linux the run
folder is a file system of its own, which is filled; elsewhere the size of a file is limited.

The configuration must name the run ``kills`` and be long enough for all the kills. Exit code 0: every start went on, and
weights, optimiser, averages, position and every logged row are the same bits as those of the training nobody stopped.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
#: Parts of a checkpoint that must agree, where it has them; the rest (`loops`, `callbacks`) names files and counts calls.
PARTS = ("state_dict", "ema", "optimizer_states", "lr_schedulers", "captions", "LatentShardsDataModule", "global_step")
WRITING = re.compile(r"\..+\.ckpt\.[a-z0-9_]{8}\.part")
PATIENCE = 1200.0
MIB = 2**20


class Trial:
    """One training that is killed and gone on with; what happened is counted in ``seen``.

    Args:
        out: ``--runs`` of the command; its log stands beside it.
        arguments: of ``lightning fit``.
        tmpdir: ``TMPDIR`` of the processes.
        seed: of the moments.
    """

    def __init__(self, out: Path, arguments: list[str], tmpdir: Path, seed: int) -> None:
        self.out, self.tmpdir, self.log = out, tmpdir, out.with_suffix(".log")
        self.arguments = [*arguments, "--name", "kills", "--runs", str(out)]
        self.draw, self.seen, self.first_row = random.Random(seed), Counter[str](), 0.0
        self.log.touch()

    @property
    def run(self) -> Path:
        """The run folder."""
        return next(iter(sorted(self.out.glob("kills/*/"))), self.out / "kills" / "none")

    def checkpoints(self) -> list[Path]:
        """In the order of steps."""
        return sorted(self.run.glob("checkpoints/step-*.ckpt"))

    def start(self, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Begin; go on once there is a checkpoint.

        Args:
            limit: bytes a file may have.
        """
        resumed = bool(self.checkpoints())
        self.seen["starts from a checkpoint" if resumed else "starts from nothing"] += 1
        if not resumed:
            shutil.rmtree(self.out / "kills", ignore_errors=True)

        def limited() -> None:
            import resource

            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        with self.log.open("ab") as log:
            given = ["--resume", str(self.run)] if resumed else self.arguments
            return subprocess.Popen(
                [sys.executable, "-m", "meddiff", "fit", *given],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.tmpdir), "PYTHONPATH": str(ROOT)},
                start_new_session=True,
                preexec_fn=limited,
            )

    def finish(self, limit: int | None = None) -> tuple[int, str]:
        """Start and wait: exit code, and what was said."""
        begin = self.log.stat().st_size
        process, started = self.start(limit), time.monotonic()
        while process.poll() is None and not (self.run / "metrics.jsonl").is_file():
            time.sleep(0.05)
        self.first_row = time.monotonic() - started  # of a training that begins
        return process.wait(timeout=PATIENCE), self._said(begin)

    def kill(self, writing: bool) -> None:
        """One start that is killed: while a checkpoint is written, or at a random moment."""
        begin, process, before = self.log.stat().st_size, self.start(), self._half_written()
        logged = self._rows()
        moment = time.monotonic() + self.draw.uniform(0.0, 2.5) * self.first_row
        for _ in range(self.draw.randint(1, 4) if writing else 1):
            while process.poll() is None and (self._half_written() <= before if writing else time.monotonic() < moment):
                time.sleep(0.0002)
            before |= self._half_written()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code, said = process.wait(), self._said(begin)
        if code != -signal.SIGKILL or "Traceback" in said:
            raise SystemExit(f"a start ended by itself with exit code {code}:\n{said[-3000:]}")
        self.seen["kills"] += 1
        self.seen["kills that left a half-written checkpoint"] += bool(self._half_written())
        self.seen["kills after new rows were logged"] += self._rows() > logged
        self.seen["starts that passed something over"] += "passed over" in said

    def _said(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def _rows(self) -> int:
        file = self.run / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    def _half_written(self) -> set[str]:
        try:
            return {name for name in os.listdir(self.run / "checkpoints") if WRITING.fullmatch(name)}
        except FileNotFoundError:
            return set()


@contextlib.contextmanager
def file_system(folder: Path, size: int) -> Iterator[bool]:
    """A file system of ``size`` bytes at ``folder``; yields whether there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def fill_the_disk(trial: Trial, mounted: bool) -> None:
    """One start for which there is no room for a checkpoint: it must say so in a sentence and keep the older ones."""
    before, ballast = trial.checkpoints(), trial.out / "ballast"
    size = before[-1].stat().st_size
    if mounted:
        free = shutil.disk_usage(trial.out).free
        with ballast.open("wb") as stream:
            for _ in range((free - size // 2) // MIB):
                stream.write(bytes(MIB))
    code, said = trial.finish(None if mounted else size // 2)
    ballast.unlink(missing_ok=True)
    if code != 2 or "No room to write" not in said or "Traceback" in said:
        raise SystemExit(f"a full disk ended with exit code {code}:\n{said[-3000:]}")
    if trial.checkpoints() != before or trial._half_written():
        raise SystemExit(f"a full disk left other files: {os.listdir(trial.run / 'checkpoints')}")
    trial.seen["full disks (a filled file system)" if mounted else "full disks (a limit on the size of files)"] += 1


def cut_the_newest(trial: Trial) -> None:
    """What a crash of the whole machine could leave: the newest checkpoint without its end."""
    newest = trial.checkpoints()[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    trial.seen["checkpoints cut"] += 1


def differences(a: object, b: object, where: str) -> list[str]:
    """Where two values are not the same bits."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in differences(x, y, f"{where}[{i}]")
        ]
    return [] if type(a) is type(b) and a == b else [where]


def rows(run: Path) -> list[dict[str, object]]:
    """Every logged row, without its time and speed."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time" and "throughput" not in k} for line in lines]


def compare(whole: Trial, broken: Trial) -> list[str]:
    """What is not the same in two finished trainings."""
    a, b = whole.checkpoints()[-1], broken.checkpoints()[-1]
    if a.name != b.name:
        return [f"{a.name} and {b.name}"]
    first, second = (torch.load(file, weights_only=True) for file in (a, b))
    found = [one for part in PARTS if part in first for one in differences(first[part], second.get(part), part)]
    found += [] if rows(whole.run) == rows(broken.run) else ["metrics.jsonl"]
    tables = [trial.run / "tradeoff.csv" for trial in (whole, broken)]
    if tables[0].is_file() and tables[0].read_bytes() != tables[1].read_bytes():
        found.append("tradeoff.csv")
    return found


def main() -> int:
    """Run it; exit code 0 if all is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True, help="of the training")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; must not exist")
    parser.add_argument("--tmpdir", type=Path, required=True, help="TMPDIR of the training")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=2048, help="MiB of the file system for the killed run")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    arguments = ["-c", str(Path(options.config).resolve())]
    whole = Trial(options.out / "whole", arguments, options.tmpdir, options.seed)
    begin = time.monotonic()
    code, said = whole.finish()
    if code:
        raise SystemExit(f"the training that nobody stops ended with exit code {code}:\n{said[-3000:]}")
    print(f"without a kill: {time.monotonic() - begin:.0f} s, {whole.checkpoints()[-1].name}", flush=True)
    with file_system(options.out / "broken", options.size * MIB) as mounted:
        broken = Trial(options.out / "broken", arguments, options.tmpdir, options.seed)
        broken.first_row = whole.first_row
        print(f"file systems: runs {os.stat(broken.out).st_dev}, TMPDIR {os.stat(options.tmpdir).st_dev}", flush=True)
        for number in range(options.kills):
            broken.kill(writing=number % 3 == 0)
            print(f"kill {number + 1}: {len(broken.checkpoints())} checkpoints", flush=True)
            if number == options.kills // 3:
                fill_the_disk(broken, mounted)
            if number == 2 * options.kills // 3:
                cut_the_newest(broken)
        code, said = broken.finish()
        if code:
            raise SystemExit(f"the last start ended with exit code {code}:\n{said[-3000:]}")
        found = compare(whole, broken)
    print("\n".join(f"{count:>4} {what}" for what, count in sorted(broken.seen.items())))
    print("bit-identical" if not found else f"different: {', '.join(found[:10])}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
