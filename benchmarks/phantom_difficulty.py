"""How hard is it to learn what a caption says of a phantom's latents? Figures that an easier generator would raise.

``python benchmarks/phantom_difficulty.py [--vae FOLDER] [--images 1500] [--seeds 1 2 3]`` prints, for chests and for shapes:

- **explained**: the share of the variance of held-out latents that a ridge regression on what the caption says (each
  finding, and with its side, place and severity) explains, about the mean latent. The penalty is chosen on a fifth of the
  training images;
- **inside**: the share of the latents' variance about their mean image that lies inside the masks of findings.

Two thirds of the images are for training. Neither looks at the U-Net: they say how large the task is under this
autoencoder. The location prior, the third such figure, is printed by ``tools/measure_phantoms.py``. Source: own.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from meddiff.models.autoencoder import encode
from meddiff.models.backbones import load_vae
from meddiff.phantoms import PhantomCohort, PhantomOptions

PENALTIES = [10.0**power for power in range(-1, 6)]


def said(findings: dict[str, dict[str, object]]) -> set[str]:
    """Everything that a caption may say of a phantom: findings, alone and with side, place and severity."""
    found = set()
    for label, about in findings.items():
        found.add(label)
        found |= {f"{label} {name} {about[name]}" for name in ("side", "place", "severity")}
        found |= {f"{label} {json.dumps(site)}" for site in about["sites"]}  # type: ignore[attr-defined]
    return found


def solve(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Ridge: (N, F), (N, P) -> (F, P)."""
    return torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def explained(x: Tensor, y: Tensor) -> float:
    """Of (N, F) and latents (N, P): share of held-out variance, the last third held out."""
    train = len(x) * 2 // 3
    inner = train * 4 // 5
    centre, means = x[:train].mean(0), y[:train].mean(0)
    x, y = x - centre, y - means

    def lost(weights: Tensor, part: slice) -> float:
        return float((y[part] - x[part] @ weights).square().sum() / y[part].square().sum())

    fits = {one: lost(solve(x[:inner], y[:inner], one), slice(inner, train)) for one in PENALTIES}
    best = min(fits, key=lambda one: fits[one])
    return 1 - lost(solve(x[:train], y[:train], best), slice(train, None))


def measure(options: PhantomOptions, vae_folder: str) -> dict[str, float]:
    """Both figures of one cohort."""
    vae = load_vae(vae_folder)
    cohort = PhantomCohort(options)
    latents: list[Tensor] = []
    masks: list[Tensor] = []
    facts: list[set[str]] = []
    for start in range(0, len(cohort), 50):
        samples = [cohort[index] for index in range(start, min(start + 50, len(cohort)))]
        images: list[NDArray[np.uint8]] = [sample.image for sample in samples]
        latents.append(encode(vae, images, 1.0))  # (B, C, h, w)
        for sample in samples:
            found = [mask for label, mask in sample.masks.items() if label in sample.labels]
            masks.append(torch.from_numpy(np.any(found, axis=0) if found else np.zeros(sample.image.shape[:2], bool)))
            facts.append(said(sample.attributes["findings"]))  # type: ignore[arg-type]
    z = torch.cat(latents).double()  # (N, C, h, w)
    names = sorted(set().union(*facts))
    x = torch.tensor([[name in mine for name in names] for mine in facts], dtype=torch.float64)  # (N, F)
    inside = F.adaptive_avg_pool2d(torch.stack(masks).double()[:, None], z.shape[-2:])  # (N, 1, h, w), share covered
    deviation = (z - z.mean(0)).square()
    share = float((deviation * inside).sum() / deviation.sum())
    return {"explained": explained(x, z.flatten(1)), "inside": share, "images": len(z), "facts": len(names)}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vae", default="assets/phantom_vae")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    print("| cohort | seed | explained by the caption | inside the masks | images, facts |\n|---|---|---|---|---|")
    for name, more in {"chests": {}, "shapes, shift 0.3": {"domain": "source", "shift": 0.3}}.items():
        for seed in arguments.seeds:
            options = PhantomOptions(n=arguments.images, seed=seed, val=0, grounding=0, fidelity=0, **more)  # type: ignore[arg-type]
            one = measure(options, arguments.vae)
            print(
                f"| {name} | {seed} | {100 * one['explained']:.1f} % | {100 * one['inside']:.1f} % | "
                f"{one['images']:,.0f}, {one['facts']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
