"""Preparing a real cohort: images/s a core without the VAE beside a plain Pillow loop.

    python benchmarks/prepare.py [--files 4] [--rounds 5]

"ours" is `RecordImages` as `lightning prepare` uses it: file to 512 x 512 sample; "plain" is a loop of Pillow
calls on the same files (open, grey, short side to 512, centre crop), "decode" only decodes, "bytes" only reads the file.
The floor is bytes and decoding: nothing can be faster without leaving pixels out. One thread, its processor time, files
in the page cache; the ways take turns, image by image, and who begins changes. "time / plain" is the median of the
ratios of single images (below 1: ours is faster), with quartiles. The files are made here: a phantom enlarged, with
noise of such a size that bytes a pixel are those of the downloads (MIMIC-CXR-JPG about 0.2, NIH about 0.4; 12 bits in a
PNG of 16: more than 1). "draft" lets the JPEG decoder leave out high frequencies (`Image.draft`), which the product does
not do; its pixels differ as printed. Memory: benchmarks/prepare_memory.py.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meddiff.common.draws import generator
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.geometry import Crop
from meddiff.preparation.record_images import RecordImages
from meddiff.preparation.records import Record

RESOLUTION = 512
BILINEAR = Image.Resampling.BILINEAR
Way: TypeAlias = Callable[[Path], NDArray[np.uint8]]


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


def product(root: Path, resolution: int = RESOLUTION) -> Way:
    """The product's way from a file below ``root`` to its crop."""
    source = RecordImages(root, resolution)
    return lambda path: source(Record("image", path.relative_to(root).as_posix(), "train", "p", "text", ())).image


def in_turns(
    ways: Mapping[str, Callable[[Path], object]], paths: Sequence[Path], rounds: int
) -> dict[str, list[float]]:
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
            ways: dict[str, Callable[[Path], object]] = {"bytes": read_bytes, "decode": decode, "plain": plain}
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


def apart(one: Way, other: Way, paths: Sequence[Path]) -> str:
    """How far two ways are from each other, in grey levels."""
    levels = np.concatenate([np.abs(one(path).astype(int) - other(path).astype(int)).ravel() for path in paths])
    return (
        f"mean {levels.mean():.2f}, 99.9 % below {np.quantile(levels, 0.999):.0f}, at most {levels.max()} grey levels"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"one thread; Pillow {Image.__version__}, load {os.getloadavg()[0]:.1f}")
    ratios = reading(options.files, options.rounds)
    print(json.dumps({"time_to_plain": {name: round(ratio, 3) for name, ratio in ratios.items()}}))


def row(first: object, *cells: object) -> None:
    print(f"{first!s:<24}" + "".join(f"{cell!s:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
