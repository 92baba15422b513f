"""Preparing a real cohort: images/s a core without the VAE beside a plain Pillow loop, and whether memory stays flat.

    python benchmarks/prepare.py [--files 4] [--rounds 5] [--images 1000 10000] [--vae FOLDER]

Reading. "ours" is `RecordImages` as `lightning prepare` uses it: file to 512 x 512 sample; "plain" is a loop of Pillow
calls on the same files (open, grey, short side to 512, centre crop), "decode" only decodes, "bytes" only reads the file.
The floor is bytes and decoding: nothing can be faster without leaving pixels out. One thread, its processor time, files
in the page cache; the ways take turns, image by image, and who begins changes. "time / plain" is the median of the
ratios of single images (below 1: ours is faster), with quartiles. The files are made here: a phantom enlarged, with
noise of such a size that bytes a pixel are those of the downloads (MIMIC-CXR-JPG about 0.2, NIH about 0.4; 12 bits in a
PNG of 16: more than 1). "draft" lets the JPEG decoder leave out high frequencies (`Image.draft`), which the product does
not do; its pixels differ as printed.

Memory. The whole pipeline (`read_cohort`, `prepare_reading`) on small images in a fresh process each, once with a pool of
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
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.draws import generator
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.geometry import Crop
from meddiff.preparation.prepare_phantom import DEFAULT_VAE
from meddiff.preparation.record_images import RecordImages
from meddiff.preparation.records import Record

RESOLUTION, SMALL = 512, 64
#: Images of the run that shows what memory is taken before there are any to speak of.
FEW = 100
BILINEAR = Image.Resampling.BILINEAR
#: name -> what is given to `prepare_reading` as its Machine.
MACHINES: dict[str, dict[str, Any]] = {
    "pool": {"accelerator": "cpu", "processes": 1},
    "lightning": {"accelerator": "cpu", "devices": 1},
}


@dataclass(frozen=True)
class Kind:
    """Files of one kind: (width, height), depth in bits, standard deviation of the noise in grey levels."""

    suffix: str
    size: tuple[int, int]
    bits: int
    noise: float


KINDS = {
    "JPEG, as MIMIC-CXR-JPG": Kind("jpg", (2544, 3056), 8, 2.0),
    "PNG, as NIH": Kind("png", (1024, 1024), 8, 1.0),
    "PNG of 16 bits": Kind("png", (2048, 2500), 12, 20.0),
}


def make_files(folder: Path, kind: Kind, n: int) -> list[Path]:
    """Write ``n`` grey radiographs of phantoms."""
    folder.mkdir(parents=True)
    phantoms = PhantomCohort(PhantomOptions(n=n, resolution=256))
    top = 2**kind.bits - 1
    paths = []
    for number in range(n):
        large = Image.fromarray(phantoms[number].image).resize(kind.size, Image.Resampling.BICUBIC)
        noise = generator("benchmark of prepare", kind.bits, number).standard_normal(kind.size[::-1], np.float32)
        values = np.rint(np.asarray(large, np.float32) * (top / 255) + kind.noise * noise).clip(0, top)
        paths.append(folder / f"{number}.{kind.suffix}")
        Image.fromarray(values.astype(np.uint8 if kind.bits == 8 else np.uint16)).save(paths[-1], quality=95)
    return paths


def read_bytes(path: Path) -> None:
    path.read_bytes()


def decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def plain(path: Path, resolution: int = RESOLUTION) -> NDArray[np.uint8]:
    """What one would write with Pillow alone; more than 8 bits are scaled by their range, as the product does."""
    with Image.open(path) as image:
        if image.mode.startswith("I"):
            levels = np.asarray(image.getextrema(), float)
            factor = 255 / float(np.ptp(levels))
            shift = -float(levels[0]) * factor
            grey = image.convert("F").point(lambda value: value * factor + shift).convert("L")
        else:
            grey = image.convert("L")
    scale = resolution / min(grey.size)
    grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), BILINEAR)
    left, upper = (grey.width - resolution) // 2, (grey.height - resolution) // 2
    return np.asarray(grey.crop((left, upper, left + resolution, upper + resolution)))


def draft(path: Path, resolution: int = RESOLUTION) -> NDArray[np.uint8]:
    """The product's crop of a JPEG that its decoder has already made smaller, to a quarter here."""
    with Image.open(path) as image:
        image.draft("L", (resolution, resolution))
        square = Crop(*image.size, resolution).rectangle
        return np.asarray(image.resize((resolution, resolution), BILINEAR, square, reducing_gap=None))


def product(root: Path, resolution: int = RESOLUTION) -> Callable[[Path], NDArray[np.uint8]]:
    """The product's way from a file below ``root`` to its crop."""
    source = RecordImages(root, resolution)
    return lambda path: source(Record("image", path.relative_to(root).as_posix(), "train", "p", "text", ())).image


def in_turns(ways: Mapping[str, Callable[[Path], Any]], paths: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of each way for each image, ``rounds`` times; one call of each before to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for way in ways.values():
        way(paths[0])
    for _ in range(rounds):
        for path in paths:
            for name in order:
                begun = time.thread_time()
                ways[name](path)
                spent[name].append(time.thread_time() - begun)
            order.reverse()
    return spent


def reading(files: int, rounds: int, kinds: Mapping[str, Kind] = KINDS) -> dict[str, float]:
    """Print the table of rates; returns kind -> median of ours / plain."""
    ratios = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        names = ("bytes", "decode", "plain", "ours", "draft")
        row("", "MB", "bytes/pixel", *names, "time / plain", "quartiles", "time / floor")
        for place, (title, kind) in enumerate(kinds.items()):
            paths = make_files(root / str(place), kind, files)
            ours = product(root)
            ways: dict[str, Callable[[Path], Any]] = {"bytes": read_bytes, "decode": decode, "plain": plain}
            ways |= {"ours": ours, **({"draft": draft} if kind.suffix == "jpg" else {})}
            spent = in_turns(ways, paths, rounds)
            rates = {way: 1 / statistics.median(seconds) for way, seconds in spent.items()}
            relative = np.divide(spent["ours"], spent["plain"])
            low, ratio, high = (float(part) for part in np.quantile(relative, (0.25, 0.5, 0.75)))
            ratios[title] = ratio
            size = statistics.mean(path.stat().st_size for path in paths)
            cells = [f"{rates[way]:.1f}/s" if way in rates else "" for way in names]
            sizes = f"{size / 1e6:.2f}", f"{size / (kind.size[0] * kind.size[1]):.2f}"
            against_floor = f"{rates['decode'] / rates['ours']:.2f}"
            row(title, *sizes, *cells, f"{ratio:.3f}", f"{low:.2f}-{high:.2f}", against_floor)
            for other in [plain, *([draft] if kind.suffix == "jpg" else [])]:
                print(f"    {other.__name__} against ours: {apart(other, ours, paths)}", flush=True)
    return ratios


def apart(one: Callable[[Path], Any], other: Callable[[Path], Any], paths: Sequence[Path]) -> str:
    """How far two ways are from each other, in grey levels."""
    levels = np.concatenate([np.abs(one(path).astype(int) - other(path).astype(int)).ravel() for path in paths])
    return (
        f"mean {levels.mean():.2f}, 99.9 % below {np.quantile(levels, 0.999):.0f}, at most {levels.max()} grey levels"
    )


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
    manifest = prepare_reading(cohort, out, vae, SMALL, Machine(**MACHINES[machine]), show_progress=False)
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
    parser.add_argument("--files", type=int, default=4, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
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
    print(f"one thread; Pillow {Image.__version__}, load {os.getloadavg()[0]:.1f}")
    ratios = reading(options.files, options.rounds)
    print(json.dumps({"time_to_plain": {name: round(ratio, 3) for name, ratio in ratios.items()}}))
    print(json.dumps({"peak_ratio": memory(options.images, options.vae)}))


def row(first: object, *cells: object) -> None:
    print(f"{first!s:<24}" + "".join(f"{cell!s:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
