"""torchxrayvision's DenseNet-121 from a plain weight file: as a classifier, and the features the literature takes from it.

Resizing is done here, never inside the network, so that the filter does not depend on torchxrayvision's version. Source:
spec/tradeoff.md section 7, spec/anchors.md 0.1.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.models.domain_classifier import build_classifier, xrv_input
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import read_state

if TYPE_CHECKING:
    from torchxrayvision.models import DenseNet

#: The side its published weights were trained at.
XRV_SIDE = 224
#: torchxrayvision publishes whole pickled models, which run code when they are read: convert once, where you trust it.
CONVERT_XRV = (
    'python -c "import torchxrayvision as x, safetensors.torch as s; '
    "s.save_file(x.models.DenseNet(weights='densenet121-res224-all').state_dict(), 'xrv224.safetensors')\""
)
#: Thresholds of its published outputs, which torchxrayvision keeps among its weights.
OPERATING_POINTS = ("op_threshs",)
DENSENET_121 = {"growth_rate": 32, "block_config": (6, 12, 24, 16), "num_init_features": 64}


def default_pathologies() -> list[str]:
    """The 18 outputs of torchxrayvision's models."""
    import torchxrayvision

    names: list[str] = torchxrayvision.datasets.default_pathologies
    return names


def load_xrv(weights: str) -> "DenseNet":
    """The frozen network in eval mode; gives 18 logits (``model.pathologies``) and never resizes.

    The published operating points are left out: they move every output by a rising function, which no ranking sees.

    Raises:
        UserError: no .safetensors file, a damaged one, or the weights of another network.
    """
    if not weights.endswith(".safetensors"):
        raise UserError(f"xrv: {weights} is no .safetensors file; make one with: {CONVERT_XRV}")
    model = build_classifier(DENSENET_121, list(default_pathologies()))
    state = read_state(locate(weights))
    model.load_state_dict(fit_state(model.state_dict(), state, f"xrv: {weights}", OPERATING_POINTS))
    return model.eval().requires_grad_(False)


def read_operating_points(weights: str) -> Tensor:
    """Thresholds of the published outputs, (18,); NaN where there is none, as in a file without them."""
    found = read_state(locate(weights)).get(OPERATING_POINTS[0])
    missing = torch.full((len(default_pathologies()),), torch.nan)
    return missing if found is None or found.shape != missing.shape else found.float()


def at_operating_points(logits: Tensor, points: Tensor) -> Tensor:
    """Probabilities moved so that each threshold lies at one half, in two straight pieces, as torchxrayvision publishes them.

    Args:
        logits: (B, C).
        points: (C,) thresholds of the sigmoid; a class with NaN keeps its sigmoid.

    Example:
        >>> round(float(at_operating_points(torch.tensor([[0.0]]), torch.tensor([0.25]))), 4)
        0.6667
    """
    p = logits.sigmoid()
    moved = torch.where(p < points, p / (2 * points), 1 - (1 - p) / (2 * (1 - points)))
    return torch.where(points.isfinite(), moved, p)


def resize_square(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): bilinear, antialiased; untouched where it has that size already."""
    if tuple(images.shape[-2:]) == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


@torch.no_grad()
def xrv_features(model: "DenseNet", images: Tensor, side: int) -> Tensor:
    """``features2`` (ReLU, then global average pool) of images (B, 3, H, W) in [-1, 1] at ``side`` px: (B, 1024)."""
    found: Tensor = model.features2(resize_square(xrv_input(images), side))
    return found


@torch.no_grad()
def xrv_gap_features(model: "DenseNet", images: Tensor) -> Tensor:
    """The last feature map without ReLU, averaged, of images (B, 3, H, W) in [-1, 1]: (B, 1024).

    The network gets values in [0, 1] at the images' own size, as Warvito/generative_chestxray gives it real images
    (512 px there), instead of the [-1024, 1024] it was trained on.
    """
    grey = (images.mean(dim=1, keepdim=True) + 1.0) / 2.0  # (B, 1, H, W)
    found: Tensor = model.features(grey).mean(dim=(2, 3))
    return found


@torch.no_grad()
def xrv_scores(model: "DenseNet", images: Tensor) -> Tensor:
    """Logits (B, 18) of images (B, 3, H, W) in [-1, 1] at the network's own 224 px."""
    found: Tensor = model(resize_square(xrv_input(images), XRV_SIDE))
    return found
