"""Where the processor time of the quickstart goes: start-up, cohort, evaluations, training; and against another checkout.

The floor is training itself: whatever else takes time is stated as a ratio to it, and ``--against FOLDER`` runs another
checkout of this suite (``git worktree add FOLDER COMMIT``) in the same call, in turns, and prints its seconds over ours.
Processor time of the whole process tree is counted, because the clock also counts what other programs do meanwhile.

    python benchmarks/quickstart_parts.py [--against FOLDER] [--rounds 3] [--config configs/quickstart.yaml] [OPTIONS OF FIT]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
#: What counts as which part: module, class or "", function. An inner one is taken out of the one around it.
PLACES = {
    "cohort": ("datamodules.phantom", "PhantomLatentsDataModule", "prepare_data"),
    "training": ("lightning.pytorch.loops.fit_loop", "_FitLoop", "run"),
    "validation loss": ("lightning.pytorch.loops.evaluation_loop", "_EvaluationLoop", "run"),
    "checkpoints": ("lightning.pytorch", "Trainer", "save_checkpoint"),
    "report": ("callbacks.tradeoff", "TradeoffCallback", "_report"),
    "evaluations": ("callbacks.evaluation", "EvaluationCallback", "run"),
}


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


class Clock:
    """Processor seconds by part; the time of an inner part is not its outer's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stack = ["start-up"]
        # from the start of the process on: the interpreter's own start counts
        self.last = 0.0

    def turn(self, name: str | None) -> None:
        """Enter a part, or leave the innermost one."""
        now = cpu_seconds()
        part = self.stack[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now
        if name is None:
            self.stack.pop()
        else:
            self.stack.append(name)

    def watch(self, part: str, owner: object, name: str) -> None:
        """Count a function's time under ``part``."""
        inner: Callable[..., object] = getattr(owner, name)

        def watched(*args: object, **kwargs: object) -> object:
            label = type(args[0]).__name__.removesuffix("Callback") if part == "evaluations" else part
            self.turn(f"{part}: {label.lower()}" if part == "evaluations" else label)
            try:
                return inner(*args, **kwargs)
            finally:
                self.turn(None)
                if part == "training":
                    self.stack[-1] = "end"

        setattr(owner, name, watched)


def child(out: Path, arguments: list[str]) -> None:
    """Run the command in this process, with watches in it, and leave the seconds in ``out``."""
    clock = Clock()
    from meddiff.cli.main import dispatch

    for part, (module, owner, name) in PLACES.items():
        place = import_module(module)
        clock.watch(part, getattr(place, owner) if owner else place, name)
    dispatch(["fit", *arguments])
    clock.turn(None)
    out.write_text(json.dumps(clock.seconds))


def run_once(checkout: Path, arguments: list[str]) -> dict[str, float]:
    """Seconds by part of one run of a checkout in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "parts.json"
        environment = {**os.environ, "PYTHONPATH": str(checkout), "WANDB_MODE": "offline"}
        command = [sys.executable, str(Path(__file__).resolve()), "--child", str(out), *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            raise SystemExit(done.stdout.decode(errors="replace")[-2000:])
        found: dict[str, float] = json.loads(out.read_text())
    return {**found, "evaluations": sum(s for part, s in found.items() if part.startswith("evaluations"))}


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of this suite, run in turns with this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    given, more = parser.parse_known_args()
    arguments = ["-c", given.config, *more]
    checkouts = {"ours": HERE} | ({"against": given.against.resolve()} if given.against else {})
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(given.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(run_once(checkout, arguments))
    medians = {
        name: {part: statistics.median(one.get(part, 0.0) for one in found) for part in found[0]}
        for name, found in rounds.items()
    }
    ours, other = medians["ours"], medians.get("against")
    print(f"processor seconds, median of {given.rounds}" + (f"; against {given.against}" if other else ""))
    print(f"{'part':<24}{'ours':>8}{'/training':>11}" + (f"{'against':>9}{'against/ours':>14}" if other else ""))
    for part, seconds in sorted(ours.items(), key=lambda item: -item[1]):
        line = f"{part:<24}{seconds:8.2f}{seconds / ours['training']:11.2f}"
        before = other.get(part, 0.0) if other else 0.0
        print(line + (f"{before:9.2f}{before / max(seconds, 1e-9):14.2f}" if other else ""))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
