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
from models.domain_classifier import build_classifier, domain_features, load_classifier

Extractor = Callable[[Tensor], Tensor]
#: name -> what its weights are; the name is the suffix of the metric (``fid_domain``, ``fid_inception``).
EXTRACTORS = {
    "domain": "folder of a classifier trained by `lightning fit -c configs/phantom_classifier.yaml`",
    "inception": "pt_inception-2015-12-05-6726825d.pth of torch-fidelity",
    "xrv224": "state dict of torchxrayvision's densenet121-res224-all as .safetensors",
}
#: torchxrayvision publishes whole pickled models, which run code when they are read: convert once, where you trust it.
CONVERT_XRV = (
    'python -c "import torchxrayvision as x, safetensors.torch as s; '
    "s.save_file(x.models.DenseNet(weights='densenet121-res224-all').state_dict(), 'xrv224.safetensors')\""
)


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
    return _xrv(weights, device) if name == "xrv224" else _inception(weights, device)


def _xrv(weights: str, device: torch.device) -> Extractor:
    """The network of the paper's FID_XRV at its own 224 px (bilinear, antialiased, as torchxrayvision resizes)."""
    from safetensors.torch import load_file

    if not weights.endswith(".safetensors"):
        raise UserError(f"xrv224: {weights} is no .safetensors file; make one with: {CONVERT_XRV}")
    network = {"growth_rate": 32, "block_config": (6, 12, 24, 16), "num_init_features": 64}
    model = build_classifier(network, list(default_pathologies()))
    state = {key: value for key, value in load_file(weights).items() if key != "op_threshs"}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"xrv224: {weights} holds another network: {str(error).splitlines()[1].strip()}") from error
    model.input_resolution = 224
    model = model.eval().requires_grad_(False).to(device)
    return lambda images: domain_features(model, images)


def default_pathologies() -> list[str]:
    """The 18 outputs of torchxrayvision's models."""
    import torchxrayvision

    names: list[str] = torchxrayvision.datasets.default_pathologies
    return names


def _inception(weights: str, device: torch.device) -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:  # torch-fidelity itself would run whatever code a pickle holds
        torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"inception: {weights} is no plain state dict ({type(error).__name__}).") from error
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
