"""How far are phantoms from radiographs? Domain Frechet and kernel distance, each with what it has to be read against.

``python benchmarks/realism.py FOLDER_OF_RADIOGRAPHS [--samples 320]``. The reference is one half of the radiographs; the
other half (real against real), phantoms and white noise are compared with it, all at the same N. The features are those
of the domain classifier, which has seen phantoms only: what it cannot tell apart may still differ to the eye.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from meddiff.metrics.functional import feature_statistics, frechet_distance, kernel_distance
from meddiff.models.domain_classifier import domain_features, load_classifier
from meddiff.phantoms import PhantomCohort, PhantomOptions


def tensor(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W) -> float (N, 1, H, W) in [-1, 1]."""
    return torch.from_numpy(images).float()[:, None] / 127.5 - 1.0


def radiographs(folder: Path) -> np.ndarray:
    """All images below ``folder`` at 128 px, grey, in an order drawn from their names: uint8 (N, 128, 128)."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    order = np.random.default_rng(0).permutation(len(files))
    pictures = [Image.open(files[i]).convert("L").resize((128, 128), Image.Resampling.LANCZOS) for i in order]
    return np.stack([np.asarray(picture) for picture in pictures])


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=320)
    parser.add_argument("--classifier", default="assets/phantom_classifier")
    arguments = parser.parse_args()
    n = arguments.samples
    real = radiographs(arguments.folder)
    if len(real) < 2 * n:
        raise SystemExit(f"{arguments.folder} holds {len(real)} images, and --samples {n} needs {2 * n}: lower it.")
    cohort = PhantomCohort(PhantomOptions(n=2 * n, seed=77))
    phantoms = np.stack([cohort[i].image for i in range(2 * n)])
    noise = np.random.default_rng(0).integers(0, 256, (n, 128, 128), dtype=np.uint8)
    classifier = load_classifier(arguments.classifier)

    def features(images: np.ndarray) -> Tensor:
        return torch.cat([domain_features(classifier, part) for part in tensor(images).split(32)])

    found = {name: features(images) for name, images in (("real", real), ("phantom", phantoms), ("noise", noise))}
    pairs = (
        ("real against real", found["real"][:n], found["real"][n : 2 * n]),
        ("phantoms against real", found["real"][:n], found["phantom"][:n]),
        ("noise against real", found["real"][:n], found["noise"]),
        ("phantoms against phantoms", found["phantom"][:n], found["phantom"][n:]),
    )
    print(f"N = {n} on each side, {found['real'].shape[1]} features\n")
    print("| pair | domain Frechet distance | KID x 1000 |\n|---|---|---|")
    for name, one, other in pairs:
        distance = frechet_distance(feature_statistics(one), feature_statistics(other))
        print(f"| {name} | {distance:.3f} | {1000 * kernel_distance(one, other):.2f} |")


if __name__ == "__main__":
    main()
