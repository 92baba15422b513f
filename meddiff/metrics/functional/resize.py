"""From one grid to another: maps as the published code takes them to the image, masks so that no finding is lost.

Source: spec/tradeoff.md, sections 6 (maps) and 11 (what the resize of a mask does to the scores); the rule for masks own.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import bounds, check_shape, map_rows, mask_rows, varies


def min_max(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, (N, H, W) float64; NaN where it is constant or not finite.

    Raises:
        UserError: maps are not (N, H, W).

    Example:
        >>> import torch
        >>> min_max(torch.tensor([[[2.0, 3.0, 6.0]]])).tolist()
        [[[0.0, 0.25, 1.0]]]
    """
    values, finite = map_rows(maps)
    low, high = (bound[:, None] for bound in bounds(values))
    return ((values - low) / (high - low)).masked_fill(~finite[:, None], torch.nan).reshape(maps.shape)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps on another grid: bilinear between pixel centres (``align_corners=False``), never antialiased.

    Args:
        maps: (N, h, w) float.
        size: (H, W).

    Returns:
        (N, H, W) in the type of the maps; half precision becomes float32.

    Raises:
        UserError: maps are not (N, h, w), or a size below 1.

    Example:
        >>> import torch
        >>> resize_maps(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist()
        [[[0.0, 1.0, 3.0, 4.0]]]
    """
    check_shape(maps)
    _check_size(size)
    values = maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
    resized = F.interpolate(values[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    flat = ~varies(values.flatten(1))
    if bool(flat.any()):  # rounding would make a landscape of a constant map, with a contrast and a maximum
        resized[flat] = values[flat, :1, :1]
    return resized


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks on another grid: a pixel is inside where at least half of it is covered; no connected part is lost.

    A part (pixels that touch, also at corners) too small for that keeps the pixel that it covers most, so that a small
    finding does not vanish as under a plain resize, and a mask that has pixels never comes back empty.

    Args:
        masks: (N, H, W) bool.
        size: (h, w), smaller or larger.

    Returns:
        (N, h, w) bool on the masks' device.

    Raises:
        UserError: masks are not boolean (N, H, W), or a size below 1.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 4, 8, dtype=torch.bool)
        >>> masks[0, :, 1:4], masks[0, 2, 6] = True, True
        >>> resize_masks(masks, (1, 2)).int().tolist(), resize_masks(masks, (1, 1)).int().tolist()
        ([[[1, 1]]], [[[1]]])
    """
    from scipy.ndimage import label  # here: a tenth of a second that the other metrics need not wait for

    mask_rows(masks, masks)
    _check_size(size)
    resized = _coverage(masks, size) >= 0.5 - 1e-9  # shares like 1 / 3 do not add up to one half exactly
    for before, after in zip(masks, resized, strict=True):
        parts, count = label(before.cpu().numpy(), structure=np.ones((3, 3)))
        for number in range(1, count + 1):
            covered = _coverage(torch.from_numpy(parts == number)[None], size)[0].to(after.device)
            if not bool((after & (covered > 0)).any()):
                after.view(-1)[covered.argmax()] = True
    return resized


def _coverage(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) float64: which share of each target pixel lies in the mask (N, H, W), exact for any two sizes."""
    values = masks.double()
    rows, columns = (_overlap(old, new) for old, new in zip(masks.shape[1:], size, strict=True))
    return rows.to(values.device) @ values @ columns.to(values.device).T


def _overlap(old: int, new: int) -> Tensor:
    """(new, old): the share of each new pixel of an axis that each old one covers; rows add up to 1."""
    width = old / new
    first = torch.arange(new, dtype=torch.float64)[:, None] * width
    pixel = torch.arange(old, dtype=torch.float64)
    return (torch.minimum(first + width, pixel + 1) - torch.maximum(first, pixel)).clamp_min(0.0) / width


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"size is {tuple(size)}; (height, width) of at least one pixel is expected.")
