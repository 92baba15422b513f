"""The domain classifier: torchxrayvision's DenseNet, small, trained on phantoms; features for the domain Frechet distance.

Input convention is torchxrayvision's: one channel, [-1024, 1024]. Source of the network: torchxrayvision (Huang et al. 2017).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.common.places import locate
from meddiff.models.weights.sources import Config

if TYPE_CHECKING:
    from torchxrayvision.models import DenseNet

#: The one that ships with the suite (configs/phantom_classifier.yaml).
DEFAULT_CLASSIFIER = "assets/phantom_classifier"
WEIGHTS = "model.safetensors"


def build_classifier(network: Config, classes: list[str]) -> "DenseNet":
    """A ``torchxrayvision.models.DenseNet`` with random weights that gives one logit a class.

    Args:
        network: growth_rate, block_config, num_init_features, ...
        classes: names of the outputs, kept as ``pathologies``.
    """
    import torchxrayvision

    arguments = {**network, "block_config": tuple(network.get("block_config", (6, 12, 24, 16)))}
    model = torchxrayvision.models.DenseNet(weights=None, num_classes=len(classes), in_channels=1, **arguments)
    model.pathologies = list(classes)
    return model


def xrv_input(image: Tensor) -> Tensor:
    """(B, 3 or 1, H, W) in [-1, 1] -> (B, 1, H, W) in [-1024, 1024], the mean over channels."""
    return image.mean(dim=1, keepdim=True) * 1024.0


def save_classifier(model: "DenseNet", network: Config, folder: Path, **facts: object) -> None:
    """Write ``config.json`` (network, classes, ``facts`` such as the held-out score) and half-precision weights.

    Only kernels are halved: the variances of batch norm, in squared units of [-1024, 1024], pass what float16 can hold.
    """
    from safetensors.torch import save

    state = {name: value.half() if value.ndim > 1 else value for name, value in model.state_dict().items()}
    write_json(folder / "config.json", {"network": network, "classes": model.pathologies, **facts})
    with atomic_open(folder / WEIGHTS) as stream:
        stream.write(save({name: value.contiguous() for name, value in state.items()}))


def load_classifier(folder: str | Path) -> "DenseNet":
    """The classifier in eval mode, float32, frozen.

    Raises:
        UserError: nothing there.
    """
    from safetensors.torch import load_file

    root = locate(folder)
    if not (root / "config.json").is_file() or not (root / WEIGHTS).is_file():
        raise UserError(
            f"No classifier at {folder}: train one with `lightning fit -c configs/phantom_classifier.yaml`."
        )
    config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    model = build_classifier(config["network"], config["classes"])
    state = load_file(root / WEIGHTS)
    model.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def domain_features(model: "DenseNet", image: Tensor) -> Tensor:
    """Pooled features (B, D) of images (B, 3 or 1, H, W) in [-1, 1]."""
    return model.features2(xrv_input(image))
