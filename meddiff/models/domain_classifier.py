"""The domain classifier: torchxrayvision's DenseNet, small, trained on phantoms; features for the domain Frechet distance.

Input convention is torchxrayvision's: one channel, [-1024, 1024]. Source of the network: torchxrayvision (Huang et al. 2017).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.files import atomic_open, write_json
from meddiff.common.places import locate
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import read_state
from meddiff.models.weights.sources import Config, read_config

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
        UserError: nothing there, or weights that do not fit their config.
    """
    root = locate(folder)
    if not (root / "config.json").is_file() or not (root / WEIGHTS).is_file():
        raise UserError(
            f"No classifier at {folder}: train one with `lightning fit -c configs/phantom_classifier.yaml`."
        )
    config = read_config(root)
    network, classes = config.get("network"), config.get("classes")
    if not isinstance(network, dict) or not isinstance(classes, list) or not classes:
        raise UserError(f"{root}/config.json has no network and classes: give the folder of a trained classifier.")
    try:
        model = build_classifier(network, classes)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{root}/config.json describes no network that can be built ({error}): train it again."
        ) from error
    file = root / WEIGHTS
    model.load_state_dict(fit_state(model.state_dict(), read_state(file), f"classifier: {file}"))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def domain_features(model: "DenseNet", image: Tensor) -> Tensor:
    """Pooled features (B, D) of images (B, 3 or 1, H, W) in [-1, 1]."""
    return model.features2(xrv_input(image))
