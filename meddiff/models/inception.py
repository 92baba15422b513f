"""Inception-v3 with the weights of the original FID, and two ways to feed it. Source: torch-fidelity; spec/tradeoff.md
section 7 and section 0 fact 8 for the paper's way."""

import io
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meddiff.common.places import locate
from meddiff.models.eight_bits import eight_bits
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import read_state

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

SIDE = 299


def load_inception(weights: str) -> "FeatureExtractorInceptionV3":
    """torch-fidelity's network from its own weight file, frozen, in eval mode.

    Raises:
        UserError: the file is no plain state dict, damaged, or of another network.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unfilled(FeatureExtractorInceptionV3):
        """Its constructor would unpickle whatever the file holds: it gets an empty one, and the weights come after."""

        def load_state_dict(self, *_: object, **__: object) -> None:
            pass

    state = read_state(locate(weights))
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Unfilled("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing, verbose=False)
    nn.Module.load_state_dict(network, fit_state(network.state_dict(), state, f"inception: {weights}"))
    found: FeatureExtractorInceptionV3 = network.eval()
    return found


@torch.no_grad()
def inception_features(network: "FeatureExtractorInceptionV3", images: Tensor) -> Tensor:
    """The standard protocol: bytes of images (B, 3, H, W) in [-1, 1] -> (B, 2048); NaN for an image that is not finite.

    The network resizes to 299 px itself (bilinear as TensorFlow 1 does it, no antialiasing) and normalises to [-1, 1).
    """
    found: Tensor = network(eight_bits(images))[0]  # (B, 2048)
    broken = ~images.isfinite().flatten(1).all(dim=1)  # as bytes they would be black
    return found.float().masked_fill(broken[:, None], torch.nan)


def paper_input(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 3, 299, 299) in [-3, 1].

    The published code scales images to [-1, 1] and hands them to pytorch-fid's network, which takes them for [0, 1]: it
    resizes (bilinear, no antialiasing) and computes 2x - 1 once more.
    """
    small = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
    return 2.0 * small - 1.0


@torch.no_grad()
def paper_inception_features(network: "FeatureExtractorInceptionV3", images: Tensor) -> Tensor:
    """The same layers on the paper's doubly normalised input: (B, 3, H, W) in [-1, 1] -> (B, 2048)."""
    values = paper_input(images)
    for layer in trunk(network):
        values = layer(values)
    return values.flatten(1).float()


def trunk(network: "FeatureExtractorInceptionV3") -> list[nn.Module]:
    """The layers behind the network's own resizing and scaling, up to the pool; they are a chain in this order."""
    return [layer for name, layer in network.named_children() if name != "fc"]
