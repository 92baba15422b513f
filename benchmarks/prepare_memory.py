"""Preparing a real cohort: whether memory stays flat.

    python benchmarks/prepare_memory.py [--images 1000 10000] [--vae FOLDER]

The whole pipeline (`read_cohort`, `prepare_reading`) on small images in a fresh process each, once with a pool of
one process, once with Lightning on one device; for the process and the largest one it starts, the most memory of its own
(RssAnon, looked at 20 times a second) and the most resident (VmHWM). Ratios are of the former: a third to a half of what
is resident are pages of libraries, which the kernel maps as it likes, 100 MB more or less from run to run. (`getrusage`
does not serve: a process starts with its parent's peak.) The floor is the same call for 100 images: interpreter, torch
and the VAE. Flat is a ratio of 1 between the sizes; "kB/image" is what an image more costs, by its row of the table.
Linux only.
"""

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from meddiff.common.draws import generator
from meddiff.preparation.prepare_phantom import DEFAULT_VAE

SMALL = 64
#: Images of the run that shows what memory is taken before there are any to speak of.
FEW = 100
MACHINES = ("pool", "lightning")


def make_cohort(root: Path, counts: Sequence[int]) -> None:
    """A tree for `prepare folder` of small PNGs and a table of the first n for each count; a tenth is stored with images."""
    (root / "images").mkdir(parents=True)
    noise = generator("cohort of the benchmark of prepare").integers(0, 256, (SMALL, SMALL)).astype(np.uint8)
    rows = []
    for number in range(max(counts)):
        name = f"images/{number // 1000:03d}-{number:06d}.png"
        Image.fromarray(np.roll(noise, number)).save(root / name, compress_level=1)
        text = f"Image {number} shows small bilateral pleural effusions and no pneumothorax."
        rows.append((name, text, "Pleural Effusion", f"p{number}", "train" if number % 10 else "fidelity"))
    for count in counts:
        with (root / f"{count}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("image", "text", "labels", "patient", "split"))
            writer.writerows(rows[:count])


def prepare(root: Path, out: Path, vae: str, count: int, machine: str) -> int:
    """The whole pipeline for the first ``count`` images; returns how many were written."""
    from meddiff.preparation.cohorts.folder import FolderOptions
    from meddiff.preparation.prepare_cohort import Machine, prepare_reading, read_cohort

    cohort = read_cohort("folder", root, FolderOptions(table=f"{count}.csv"))
    place = Machine("cpu", processes=1) if machine == "pool" else Machine("cpu", devices=1)
    manifest = prepare_reading(cohort, out, vae, SMALL, place, show_progress=False)
    assert manifest is not None
    return sum(split["samples"] for split in manifest.counts.values())


@dataclass
class Peak:
    """Of a process in MB: memory of its own at most, and resident at most."""

    own: float = 0.0
    resident: float = 0.0


def peak_memory(command: Sequence[str]) -> tuple[Peak, Peak]:
    """Run a command; the peaks of its process and of the largest one below it.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    peaks: dict[int, Peak] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for pid in _family(process.pid):
            values = _status(pid)
            if "RssAnon" in values:
                peak = peaks.setdefault(pid, Peak())
                peak.own = max(peak.own, values["RssAnon"])
                peak.resident = values["VmHWM"]  # a peak itself
        time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    main = peaks.pop(process.pid, Peak())
    return main, max(peaks.values(), key=lambda peak: peak.own, default=Peak())


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended
            continue
        below.setdefault(parent, []).append(int(entry.name))
    family = [pid]
    for one in family:  # grows on the way
        family += below.get(one, [])
    return family


def _status(pid: int) -> dict[str, float]:
    """Sizes in MB of a process; none if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def memory(images: Sequence[int], vae: str) -> dict[str, float]:
    """Print the table of peaks; returns machine -> own memory with the most images / with the fewest, larger process."""
    found = {}
    counts = [FEW, *images]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_cohort(root / "cohort", counts)
        row("", "images", "own MB", "started own", "resident", "started", "ratio", "kB/image", "images/s")
        for machine in MACHINES:
            peaks: dict[int, tuple[Peak, Peak]] = {}
            for count in counts:
                begun = time.perf_counter()
                where = [str(root / "cohort"), str(root / machine / str(count)), vae, str(count), machine]
                peaks[count] = main, started = peak_memory([sys.executable, __file__, "--child", *where])
                seconds = time.perf_counter() - begun
                few = peaks[images[0]] if count != FEW else peaks[FEW]
                pairs = list(zip(peaks[count], few, strict=True))
                found[machine] = round(max(now.own / then.own for now, then in pairs if then.own), 3)
                more = sum(now.own - then.own for now, then in pairs) * 1024 / max(1, count - images[0])
                sizes = [f"{one.own:.1f}" if one.own else "none" for one in (main, started)]
                sizes += [f"{one.resident:.0f}" if one.own else "none" for one in (main, started)]
                growth = ("floor", "") if count == FEW else (f"{found[machine]:.3f}", f"{more:.2f}")
                row(machine, count, *sizes, *growth, f"{count / seconds:.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000], help="ascending, more than 100")
    parser.add_argument("--vae", default=DEFAULT_VAE)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        root, out, vae, count, machine = options.child
        warnings.simplefilter("ignore")
        if machine == "lightning":
            import lightning  # noqa: F401  # it sets its logger's level when imported

            logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        prepare(Path(root), Path(out), vae, int(count), machine)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"load {os.getloadavg()[0]:.1f}")
    print(json.dumps({"peak_ratio": memory(options.images, options.vae)}))


def row(first: object, *cells: object) -> None:
    print(f"{first!s:<24}" + "".join(f"{cell!s:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
