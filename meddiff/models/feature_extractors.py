"""Images to feature vectors for Frechet and kernel distances: one protocol of the literature, one name.

All take images (B, 3, H, W) in [-1, 1] and give (B, D) float32. Weights are files on disk; nothing is downloaded.
Distances of two protocols do not compare, also when the network is the same. Source: spec/tradeoff.md section 7,
spec/anchors.md 0.1.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.common.foreign_files import instead_of_weights
from meddiff.common.places import locate
from meddiff.models.domain_classifier import WEIGHTS, domain_features, load_classifier
from meddiff.models.inception import inception_features, load_inception, paper_inception_features
from meddiff.models.rad_dino import SQUASHED, load_rad_dino, rad_dino_features
from meddiff.models.xrv import CONVERT_XRV, default_pathologies, load_xrv, xrv_features, xrv_gap_features

__all__ = [
    "CONVERT_XRV",
    "EXTRACTORS",
    "Extractor",
    "Protocol",
    "build_extractor",
    "default_pathologies",
    "extractor_identity",
    "missing_extractors",
]

Extractor = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Protocol:
    """How images become features.

    Attributes:
        weights: what its weights are, in words.
        recipe: input range, resizing and layer, in words.
        load: file or folder of weights -> network.
        features: network, images -> features.
        frechet: what a Frechet distance of these features is called: ``fid`` where the literature calls it so, else ``fd``
            (FID means Inception's features).
        version: raised whenever the numbers change, so that stored features of an older recipe are not taken for these.
    """

    weights: str
    recipe: str
    load: Callable[[str], nn.Module]
    features: Callable[..., Tensor]
    frechet: str = "fid"
    version: int = 1


_CLASSIFIER = "folder of a classifier trained by `lightning fit -c configs/phantom_classifier.yaml`"
_INCEPTION = "pt_inception-2015-12-05-6726825d.pth or weights-inception-2015-12-05-6726825d.pth of torch-fidelity"
_XRV = "state dict of torchxrayvision's densenet121-res224-all as .safetensors"
_RAD_DINO = "folder of rad-dino: config.json and model.safetensors"
#: name -> protocol; the name is the suffix of the metric (``fd_domain``, ``kid_inception_paper``).
EXTRACTORS: dict[str, Protocol] = {
    "domain": Protocol(
        _CLASSIFIER,
        "[-1024, 1024], stored size, ReLU and global average pool",
        load_classifier,
        domain_features,
        frechet="fd",
    ),
    "inception": Protocol(
        _INCEPTION, "bytes, TensorFlow-1 bilinear to 299 without antialiasing, pool", load_inception, inception_features
    ),
    "inception_paper": Protocol(
        _INCEPTION,
        "[-3, 1] (normalised twice), bilinear to 299 without antialiasing, pool",
        load_inception,
        paper_inception_features,
    ),
    "xrv224": Protocol(
        _XRV,
        "[-1024, 1024], antialiased bilinear to 224, ReLU and global average pool",
        load_xrv,
        partial(xrv_features, side=224),
    ),
    "xrv512": Protocol(
        _XRV,
        "[-1024, 1024], antialiased bilinear to 512, ReLU and global average pool",
        load_xrv,
        partial(xrv_features, side=512),
    ),
    "xrv_gap": Protocol(_XRV, "[0, 1], stored size, global average pool without ReLU", load_xrv, xrv_gap_features),
    "raddino": Protocol(
        _RAD_DINO,
        "antialiased bicubic to 518, middle cut out, class token",
        load_rad_dino,
        rad_dino_features,
        frechet="fd",
    ),
    "raddino_299": Protocol(
        _RAD_DINO,
        "squashed to bytes of 299 px, then bicubic to 518, class token",
        load_rad_dino,
        partial(rad_dino_features, squash=SQUASHED),
        frechet="fd",
    ),
}


def missing_extractors(weights: dict[str, str]) -> list[str]:
    """One sentence for each unknown name, each file that is not there, and each that begins as weights never do."""
    problems = []
    for name, path in weights.items():
        if name not in EXTRACTORS:
            problems.append(f"No feature extractor {name!r}: there are {', '.join(EXTRACTORS)}.")
            continue
        file = locate(path)
        if not file.exists():
            problems.append(f"No weights at {path} for {name} features: give the {EXTRACTORS[name].weights}.")
            continue
        file = file / WEIGHTS if file.is_dir() else file
        # an empty file says nothing of its own: its loader tells what is wanted there
        problem = instead_of_weights(file) if file.is_file() and file.stat().st_size else None
        if problem:
            problems.append(f"{name}: {problem}")
    return problems


def build_extractor(name: str, weights: str, device: torch.device) -> Extractor:
    """A frozen extractor on ``device``.

    Raises:
        UserError: unknown name, no weights, or the weights of another network.
    """
    problems = missing_extractors({name: weights})
    if problems:
        raise UserError(problems[0])
    protocol = EXTRACTORS[name]
    return partial(protocol.features, protocol.load(weights).to(device))


def extractor_identity(name: str, weights: str) -> dict[str, str | int]:
    """What decides an extractor's output: its name, the version of its protocol, sha256 of its weight file(s).

    Raises:
        UserError: unknown name or no weights.
    """
    problems = missing_extractors({name: weights})
    if problems:
        raise UserError(problems[0])
    path, digest = locate(weights), hashlib.sha256()
    for file in [path / "config.json", path / WEIGHTS] if path.is_dir() else [path]:
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}): give the {EXTRACTORS[name].weights}.") from None
    return {"extractor": name, "version": EXTRACTORS[name].version, "weights": digest.hexdigest()}
