"""How far is a reconstruction from its image? Squared error and structural similarity. Source: Wang et al. (2004) for SSIM."""

from typing import NamedTuple

from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double
from meddiff.metrics.functional.ms_ssim import structural_similarity


class Reconstruction(NamedTuple):
    """Of each pair (N,) float64; NaN where an image is not finite.

    Attributes:
        mse: mean squared difference of values from 0 to 1.
        ssim: mean structural similarity, 1 for equal images.
    """

    mse: Tensor
    ssim: Tensor


def reconstruction(images: Tensor, originals: Tensor, data_range: float = 255.0) -> Reconstruction:
    """Compare pairs of images.

    Args:
        images: (N, C, H, W), bytes or float.
        originals: the same.
        data_range: largest minus smallest value that images can have: 255 of bytes, 2 of values in [-1, 1].

    Raises:
        UserError: shapes that differ, or images of less than 11 px, the window of SSIM.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 1, 16, 16)
        >>> round(reconstruction(x + 51, x).mse.item(), 6)
        0.04
    """
    if images.ndim != 4 or images.shape != originals.shape:
        raise UserError(
            f"images have the shapes {tuple(images.shape)} and {tuple(originals.shape)}; (N, C, H, W) twice is expected."
        )
    a, b = as_double(images), as_double(originals)
    mse = ((a - b) / data_range).square().mean(dim=(1, 2, 3))
    return Reconstruction(mse, structural_similarity(a, b, data_range))
