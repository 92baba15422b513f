"""Intersection over union of a thresholded map. Source: spec/tradeoff.md, sections 6 and 11."""

import torch
from torch import Tensor

from common.errors import UserError
from metrics.functional.checks import NAN, as_double, defined, map_rows, mask_rows, varies
from metrics.functional.mixture import fit_two_gaussians


def mixture_threshold(maps: Tensor) -> Tensor:
    """Mean of the two means of a Gaussian mixture fitted to the values of each map.

    Each map is standardised before the fit, so the threshold follows an affine change of the map; the published code
    fits raw attention values, where the regularisation of the variances (1e-6) decides the result.

    Args:
        maps: (N, H, W) float.

    Returns:
        (N,) float64 in the map's own units; NaN where the map is constant or not finite.

    Raises:
        UserError: maps are not (N, H, W).

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.0, 0.1, 0.2], [8.0, 8.1, 8.2]]])
        >>> round(mixture_threshold(maps).item(), 4)
        4.1
    """
    values, finite = map_rows(maps)
    usable = finite & varies(values)
    centre = values.mean(dim=1)
    centred = values - centre[:, None]
    scale = centred.square().mean(dim=1).sqrt()
    threshold = torch.full_like(centre, NAN)
    if usable.any():
        standardised = centred[usable] / scale[usable, None]
        middle = fit_two_gaussians(standardised).mean(dim=1)
        threshold[usable] = centre[usable] + scale[usable] * middle
    return threshold


def binary_iou(pred: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of two binary images.

    Args:
        pred: (N, H, W) bool.
        masks: (N, H, W) bool.

    Returns:
        (N,) float64; NaN where both are empty.

    Raises:
        UserError: not boolean, or shapes differ.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[[True, True, False]]])
        >>> binary_iou(pred, torch.tensor([[[False, True, True]]])).item()
        0.3333333333333333
    """
    a, b = mask_rows(pred, pred, "predictions"), mask_rows(masks, pred)
    return (a & b).sum(dim=1).double() / (a | b).sum(dim=1)


def mean_iou(maps: Tensor, masks: Tensor, threshold: Tensor | float | None = None) -> Tensor:
    """Mean of the IoU of the foreground and of the background of a map above its threshold.

    The binary map is smoothed before: a pixel that has all its eight neighbours becomes true where at least half of the
    3 x 3 are (so five of nine); the pixels of the border stay as they are.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool.
        threshold: (N,) or a number, in the map's units; pixels above it are foreground. None: `mixture_threshold`.

    Returns:
        (N,) float64; NaN where the map is not finite, there is no threshold (a constant map), or one of the two unions
        is empty.

    Raises:
        UserError: shapes differ, or masks are not boolean.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> masks[:, :2] = True
        >>> mean_iou(masks.float(), masks).item(), mean_iou(1 - masks.float(), masks).item()
        (1.0, 0.0)
    """
    values, finite = map_rows(maps)
    mask_rows(masks, maps)
    cut = mixture_threshold(maps) if threshold is None else as_double(torch.as_tensor(threshold)).to(values.device)
    if cut.shape not in (torch.Size([]), torch.Size([len(maps)])):
        raise UserError(f"threshold has the shape {tuple(cut.shape)}; a number or one for each of {len(maps)} maps.")
    pred = _smooth((values > cut.reshape(-1, 1)).reshape(maps.shape))
    masks = masks.to(pred.device)
    both = (binary_iou(pred, masks) + binary_iou(~pred, ~masks)) / 2
    return defined(both, finite & ~cut.isnan())


def _smooth(binary: Tensor) -> Tensor:
    """3 x 3 majority of the interior pixels of (N, H, W) bool."""
    if min(binary.shape[1:]) < 3:
        return binary
    smooth = binary.clone()
    windows = binary.unfold(1, 3, 1).unfold(2, 3, 1)
    smooth[:, 1:-1, 1:-1] = windows.sum(dim=(3, 4)) >= 5
    return smooth
