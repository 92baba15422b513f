"""A run of a sweep that takes a moment: what the tests of the runner start in the place of a training.

``python sweep_child.py --KEY=VALUE ...``: it counts its starts in ``starts`` of its run folder and logs a row of ``score`` an
iteration, as a training does; from a second start on it goes on where it was. Keys:

    steps, pause    iterations, and seconds between them
    base            score at iteration n is base + n * slope
    slope
    fail            exit code, before the first iteration
    until           a file: it fails with code 3 as long as that is missing
    unmarked        1: it ends without finished.json
    deaf            1: SIGTERM is ignored
    fill            bytes written into the run folder before it ends
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    """Run; returns the exit code."""
    given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    folder = Path(os.environ["MEDDIFF_RUN_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    if given.get("deaf") == "1":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with (folder / "starts").open("a") as stream:
        stream.write(f"{os.getpid()} {os.environ.get('MEDDIFF_RESTART_COUNT', '0')}\n")
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    print("begins", given, flush=True)
    if int(given.get("fail", 0)):
        print("error: this one was told to fail", file=sys.stderr)
        return int(given["fail"])
    if "until" in given and not Path(given["until"]).exists():
        print("error: not yet", file=sys.stderr)
        return 3
    metrics = folder / "metrics.jsonl"
    done = metrics.read_text().count("\n") if metrics.exists() else 0
    for step in range(done, int(given.get("steps", 3))):
        score = float(given.get("base", 0)) + step * float(given.get("slope", 1))
        with metrics.open("a") as stream:
            stream.write(json.dumps({"step": step, "images": 8 * step, "score": score, "other": -score}) + "\n")
        time.sleep(float(given.get("pause", 0.05)))
    if "fill" in given:
        try:
            (folder / "weights").write_bytes(bytes(int(given["fill"])))
        except OSError as error:
            (folder / "weights").unlink(missing_ok=True)
            print(f"error: No room to write ({error.strerror})", file=sys.stderr)
            return 2
    if given.get("unmarked") != "1":
        (folder / "finished.json").write_text("{}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
