"""How far are drawn images from real ones? Table 4: Frechet and kernel distances under every protocol of the literature.

Source: Heusel et al. 2017, Binkowski et al. 2018, Dombrowski et al. 2024 (Table 4); protocols spec/anchors.md 0.1 and
spec/tradeoff.md section 7; controls own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from callbacks.fidelity import DEFAULT_CLASSIFIER
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.evaluation.drawing import draw_prompts, read_images, signed
from meddiff.evaluation.feature_cache import Images, cache_folder, measure, real_features
from meddiff.evaluation.samples import evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import FeatureStatistics, feature_statistics, frechet_distance, kernel_distance
from meddiff.models.backbones import untrained_twin
from meddiff.models.feature_extractors import EXTRACTORS, build_extractor, missing_extractors
from meddiff.models.sampling import SamplingOptions, decode
from meddiff.runs.tables import write_table
from meddiff.shards.dataset import LatentShardsDataset

FIRST = ("metric", "value", "n", "protocol", "control", "seed")
PAPER_N = 5000
CONTROLS = ("real_vs_real", "autoencoder", "noise", "untrained")


@dataclass(frozen=True)
class FidelityOptions:
    """Options of ``lightning evaluate fidelity``."""

    split: str = "fidelity"
    """Split of the shards; must carry images."""
    samples: int | None = None
    """Images drawn, and size of the reference (the split must hold twice as many). Only figures of one N compare. Null
    takes half of the split, at most the paper's 5,000."""
    weights: dict[str, str] = field(default_factory=lambda: {"domain": DEFAULT_CLASSIFIER})
    """Feature extractor -> weights: domain, inception, inception_paper, xrv224, xrv512, xrv_gap."""
    controls: list[str] = field(default_factory=lambda: list(CONTROLS))
    """What is measured beside the drawn images: real_vs_real, autoencoder, noise, untrained (draws as many again)."""
    sampling: SamplingOptions | None = None
    """How images are drawn; null takes the model's own."""
    batch_size: int = 32
    """Images at a time; changes no result."""
    statistics: str | None = None
    """Folder for features of the real images; null takes SHARDS/.statistics, or the evaluation where that is read-only."""
    ema: bool = False
    """Evaluate the averaged weights instead of the raw ones."""
    seed: int = 0
    """Of the initial noise."""


def evaluate_fidelity(
    module: Any, dataset: LatentShardsDataset, options: FidelityOptions, out: Path
) -> dict[str, float]:
    """Draw what is missing, measure, and write ``OUT/fidelity.csv``.

    The first N images of the split are the reference; images are drawn for the captions of the next N, whose own real
    images are the control *real against real*. The paper draws for the captions of the reference itself.

    Args:
        module: a `LatentDiffusionModule` on its device.
        out: folder of the evaluation; images go to ``images/fidelity`` and ``images/untrained``.

    Returns:
        ``fid_NAME`` and ``kid_NAME`` of each extractor, ``CONTROL/fid_NAME``..., and ``n``.

    Raises:
        UserError: weights are missing, the split is too small, or images of other settings are in the way.
    """
    n, device, size = check_fidelity(dataset, options), module.device, options.batch_size
    reference, others = range(n), range(n, 2 * n)
    extractors = {name: build_extractor(name, path, device) for name, path in options.weights.items()}
    prompts = {dataset.keys[i]: str(dataset.metadata(i)["impression"]) for i in others}
    folder = Path(options.statistics) if options.statistics else cache_folder(dataset.folder, out)

    def real(indices: Sequence[int]) -> dict[str, Tensor]:
        return real_features(dataset, indices, options.weights, extractors, device, size, folder)

    def drawn(part: str, unet: Any = None) -> dict[str, Tensor]:
        place = out / "images" / part
        draw_prompts(module, place, prompts, options, unet=unet)
        images = _files(place, dataset)
        return measure(extractors, images, others, device, size, f"{part} images")

    sources = {"autoencoder": _through_vae(module, dataset, options.seed), "noise": _noise(dataset, options.seed)}
    with undisturbed(module), module.evaluated_weights(options.ema):
        found = {"": drawn("fidelity")}
        base = real(reference)
        for control in options.controls:
            if control == "real_vs_real":
                found[control] = real(others)
            elif control == "untrained":
                found[control] = drawn("untrained", untrained_twin(module.unet, options.seed))
            else:
                found[control] = measure(extractors, sources[control], others, device, size, control)
    return _write(out, options.seed, n, base, found)


def check_fidelity(dataset: LatentShardsDataset, options: FidelityOptions) -> int:
    """N, the number of images to draw; refuses what cannot be measured, before anything is built.

    Raises:
        UserError: weights are missing, unknown names, or a split that is too small.
    """
    problems = missing_extractors(options.weights)
    unknown = sorted(set(options.controls) - set(CONTROLS))
    if unknown:
        problems.append(f"No control {unknown[0]!r}: there are {', '.join(CONTROLS)}.")
    if not options.weights:
        problems.append("fidelity needs at least one feature extractor: set weights.")
    n = min(PAPER_N, len(dataset) // 2) if options.samples is None else options.samples
    if n < 2:
        problems.append(f"samples is {n}; a distance between sets needs at least 2.")
    elif len(dataset) < 2 * n:
        problems.append(
            f"The split {dataset.split!r} of {dataset.folder} holds {len(dataset)} images, and {n} samples "
            f"need {2 * n} (a reference and captions to draw): set samples to {len(dataset) // 2} or less."
        )
    if problems:
        raise UserError(" ".join(problems))
    return n


def _files(folder: Path, dataset: LatentShardsDataset) -> Images:
    """Images drawn for the samples of ``dataset``."""
    return lambda indices: signed(read_images(folder, [dataset.keys[i] for i in indices]))


def _through_vae(module: Any, dataset: LatentShardsDataset, seed: int) -> Images:
    """The real images through the autoencoder: the best that a latent model can do."""

    def images(indices: Sequence[int]) -> Tensor:
        latents = torch.stack([evaluation_latents(dataset, i, seed) for i in indices]).to(module.device)
        pixels = decode(module.vae, latents, float(module.vae.config.scaling_factor))  # (B, H, W, 3)
        return signed(torch.from_numpy(pixels).permute(0, 3, 1, 2))

    return images


def _noise(dataset: LatentShardsDataset, seed: int) -> Images:
    """Uniform noise of the images' size: the worst."""
    side = dataset.manifest.resolution

    def images(indices: Sequence[int]) -> Tensor:
        draws = [generator(seed, "noise image", dataset.keys[i]).uniform(-1, 1, (3, side, side)) for i in indices]
        return torch.from_numpy(np.stack(draws)).float()

    return images


def _write(
    out: Path, seed: int, n: int, reference: dict[str, Tensor], found: dict[str, dict[str, Tensor]]
) -> dict[str, float]:
    """``fidelity.csv`` and the summary; ``found``: control ("" for the drawn images) -> extractor -> features."""
    rows: list[dict[str, Any]] = []
    summary: dict[str, float] = {}
    for name, features in reference.items():
        moments: FeatureStatistics = feature_statistics(features)
        for control, sets in found.items():
            values = {
                f"fid_{name}": frechet_distance(moments, feature_statistics(sets[name])),
                f"kid_{name}": kernel_distance(features, sets[name]),
            }
            for metric, value in values.items():
                summary[f"{control}/{metric}" if control else metric] = value
                rows.append(
                    {
                        "metric": metric,
                        "value": value,
                        "n": n,
                        "protocol": f"{name}/{EXTRACTORS[name].version}",
                        "control": control,
                        "seed": seed,
                    }
                )
    write_table(out / "fidelity.csv", rows, FIRST)
    return {**summary, "n": float(n)}
