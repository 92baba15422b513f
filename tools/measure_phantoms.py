"""Figures about phantoms for ``docs/phantoms.md``.

    python tools/measure_phantoms.py [FOLDER OF REAL X-RAYS] [--seeds 1 2 3]

Prints the location-only prior (mean mask of a class in train as the answer for every sample of grounding; the
generator was tuned on seed 0, so others are the test), the rate of rendering, and, given a folder of radiographs,
how their grey values and power spectra compare. Source: own.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from meddiff.common.findings import FINDINGS
from meddiff.metrics.functional import box_masks, contrast_to_noise_ratio, pixel_auroc, pointing_game
from meddiff.phantoms.cohort import PhantomCohort
from meddiff.phantoms.options import PhantomOptions
from meddiff.shards.sample import CohortSample


def union_of_boxes(sample: CohortSample, label: str) -> Tensor:
    """(H, W) bool, inside any box of ``label``."""
    boxes = [(box.x, box.y, box.w, box.h) for box in sample.boxes if box.label == label]
    height, width = sample.image.shape[:2]
    return box_masks(torch.tensor(boxes), (height, width)).any(dim=0)


def location_prior(options: PhantomOptions) -> dict[str, dict[str, float]]:
    """label -> CNR and AUROC against masks, CNR against boxes, Top-1 (maximum inside the mask), number of samples."""
    cohort = PhantomCohort(options)
    heat = {label: np.zeros((options.resolution,) * 2) for label in FINDINGS}
    tests: list[CohortSample] = []
    for index in range(len(cohort)):
        split = cohort.split_of(index)
        if not cohort.plan.labels[index] or split not in ("train", "grounding"):
            continue
        sample = cohort[index]
        if split == "grounding":
            tests.append(sample)
            continue
        for label in sample.labels:
            heat[label] += sample.masks[label]
    result = {}
    for label in FINDINGS:
        mine = [sample for sample in tests if label in sample.labels]
        maps = torch.from_numpy(heat[label]).expand(len(mine), -1, -1)
        masks = torch.from_numpy(np.stack([sample.masks[label] for sample in mine]))
        boxes = torch.stack([union_of_boxes(sample, label) for sample in mine])
        scores = {
            "cnr": contrast_to_noise_ratio(maps, masks, unbiased=False),
            "cnr_box": contrast_to_noise_ratio(maps, boxes, unbiased=False),
            "auroc": pixel_auroc(maps, masks),
            "top1": pointing_game(maps, masks),
        }
        result[label] = {"n": float(len(mine))} | {name: float(score.mean()) for name, score in scores.items()}
    names = ("cnr", "cnr_box", "auroc", "top1")
    macro = {name: float(np.mean([result[label][name] for label in FINDINGS])) for name in names}
    result["macro"] = macro | {"n": float(len(tests))}
    return result


def spectrum(images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Radially averaged power spectrum of images (n, s, s) in 0..1, by cycles per image (0 .. s/2)."""
    size = images.shape[1]
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = (np.abs(np.fft.fft2((images - images.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size))).round().astype(int)
    return (np.bincount(cycles.ravel(), power.ravel()) / np.bincount(cycles.ravel()))[: size // 2]


def describe(name: str, images: NDArray[np.floating]) -> None:
    """One line of a Markdown table about images (n, s, s) in 0..1."""
    centiles = " ".join(f"{value:.2f}" for value in np.percentile(images, [5, 25, 50, 75, 95]))
    power = spectrum(images)
    slope = np.polyfit(np.log(np.arange(3, 48)), np.log(power[3:48]), 1)[0]
    bands = " ".join(f"{np.log10(power[k]):.1f}" for k in (2, 4, 8, 16, 32, 48))
    contrast = images.std(axis=(1, 2)).mean()
    print(f"| {name} | {images.mean():.2f} | {contrast:.2f} | {centiles} | {bands} | {slope:.2f} |")


def print_prior(seeds: list[int]) -> None:
    """The location-only prior as a Markdown table: mean over cohorts of these seeds, then the macro row of each."""
    runs = [location_prior(PhantomOptions(n=4000, seed=seed, grounding=800, val=0, fidelity=0)) for seed in seeds]

    def row(name: str, values: dict[str, float]) -> str:
        return f"| {name} | {values['n']:.0f} | " + " | ".join(f"{values[key]:.2f}" for key in columns) + " |"

    columns = {"cnr": "CNR (mask)", "cnr_box": "CNR (box)", "auroc": "AUROC", "top1": "Top-1 (pointing game)"}
    print(f"| class | findings (n) | {' | '.join(columns.values())} |\n|---|---|---|---|---|---|")
    for label in runs[0]:
        mean = {key: float(np.mean([run[label][key] for run in runs])) for key in columns}
        print(row(label, mean | {"n": sum(run[label]["n"] for run in runs)}))
    for seed, run in zip(seeds, runs, strict=True):
        print(row(f"macro, seed {seed}", run["macro"]))


def main(folder: str | None, seeds: list[int]) -> None:
    """Print everything as Markdown."""
    print_prior(seeds)
    cohort = PhantomCohort(PhantomOptions(n=600))
    start = time.process_time()
    phantoms = np.stack([cohort[index].image for index in range(600)]) / 255.0
    print(f"\n{600 / (time.process_time() - start):.0f} phantoms per CPU second\n")
    print("| set | mean | contrast | centiles 5 25 50 75 95 | log10 power at 2 4 8 16 32 48 cycles | slope |")
    print("|---|---|---|---|---|---|")
    describe("phantoms", phantoms)
    if folder:
        files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".png"))[:600]
        pictures = [Image.open(path).convert("L").resize((128, 128), Image.Resampling.LANCZOS) for path in files]
        describe("real", np.stack([np.asarray(picture) for picture in pictures]) / 255.0)
    describe("noise", np.random.default_rng(0).uniform(size=(200, 128, 128)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="folder of .jpg or .png radiographs to compare with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of the cohorts of the prior")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.seeds)
