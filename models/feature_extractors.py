"""Images to feature vectors for Frechet and kernel distances: the domain classifier, Inception, torchxrayvision.

All take images (B, 3, H, W) in [-1, 1] and give (B, D) float32. Weights are files on disk; nothing is downloaded.
Source: spec/tradeoff.md section 7, spec/anchors.md 0.1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from models.domain_classifier import domain_features, load_classifier

Extractor = Callable[[Tensor], Tensor]
#: name -> what its weights are; the name is the suffix of the metric (``fid_domain``, ``fid_inception``).
EXTRACTORS = {
    "domain": "folder of a classifier trained by `lightning fit -c configs/phantom_classifier.yaml`",
    "inception": "pt_inception-2015-12-05-6726825d.pth of torch-fidelity",
}


def missing_extractors(weights: dict[str, str]) -> list[str]:
    """One sentence for each unknown name and each file that is not there."""
    problems = []
    for name, path in weights.items():
        if name not in EXTRACTORS:
            problems.append(f"No feature extractor {name!r}: there are {', '.join(EXTRACTORS)}.")
        elif not Path(path).exists():
            problems.append(f"No weights at {path} for {name} features: give the {EXTRACTORS[name]}.")
    return problems


def build_extractor(name: str, weights: str, device: torch.device) -> Extractor:
    """A frozen extractor on ``device``.

    Raises:
        UserError: unknown name or no weights.
    """
    problems = missing_extractors({name: weights})
    if problems:
        raise UserError(problems[0])
    if name == "domain":
        classifier = load_classifier(weights).to(device)
        return lambda images: domain_features(classifier, images)
    return _inception(weights, device)


def _inception(weights: str, device: torch.device) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    extractor: Any = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights, verbose=False
    )
    extractor = extractor.to(device).eval()

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        # the network normalises itself and wants bytes
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)  # (B, 3, H, W)
        found: Tensor = extractor(pixels)[0]  # (B, 2048)
        return found.float()

    return features
