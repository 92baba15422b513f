"""Intersection over union of a thresholded map. Source: spec/tradeoff.md, sections 6 and 11."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import (
    NAN,
    above,
    as_double,
    bounds,
    check_shape,
    count_true,
    defined,
    map_rows,
    mask_rows,
    native_rows,
    varies,
)
from meddiff.metrics.functional.mixture import fit_two_gaussians
from meddiff.metrics.functional.resize import resize_maps

#: "standard" standardises a map before the fit, "paper" fits the raw values as the published code does.
Preset = Literal["standard", "paper"]

#: BioViL's thresholds of a map that is scaled to 0 to 1.
BIOVIL_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def mixture_threshold(maps: Tensor, preset: Preset = "standard") -> Tensor:
    """Mean of the two means of a Gaussian mixture fitted to the values of each map.

    By default each map is standardised before the fit, so the threshold follows an affine change of the map. The
    published code fits raw attention values (``preset="paper"``), where the 1e-6 that scikit-learn adds to variances is
    as large as the variances themselves and decides the result.

    Args:
        maps: (N, H, W) float, on the grid where the threshold is wanted: the paper fits on the latents' grid.
        preset: "standard" or "paper".

    Returns:
        (N,) float64 in the map's own units; NaN where the map is constant or not finite.

    Raises:
        UserError: maps are not (N, H, W), or an unknown preset.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.0, 0.1, 0.2], [8.0, 8.1, 8.2]]])
        >>> round(mixture_threshold(maps).item(), 4), round(mixture_threshold(maps, "paper").item(), 4)
        (4.1, 4.1)
    """
    if preset not in ("standard", "paper"):
        raise UserError(f"preset is {preset!r}; it is 'standard' or 'paper'.")
    values, finite = map_rows(maps)
    usable = finite & varies(values)
    centre = values.mean(dim=1)
    # Centred in both: a shift changes no fit, but beside a large offset squares would lose the variance.
    centred = values - centre[:, None]
    scale = centred.square().mean(dim=1).sqrt() if preset == "standard" else torch.ones_like(centre)
    threshold = torch.full_like(centre, NAN)
    if usable.any():
        middle = fit_two_gaussians(centred[usable] / scale[usable, None]).mean(dim=1)
        threshold[usable] = centre[usable] + scale[usable] * middle
    return threshold


def foreground(maps: Tensor, threshold: Tensor | float | None = None) -> Tensor:
    """Binary image of each map: above its threshold, then smoothed.

    Smoothing: a pixel that has all its eight neighbours becomes true where at least half of the 3 x 3 are (so five of
    nine); the pixels of the border stay as they are.

    Args:
        maps: (N, H, W) float.
        threshold: (N,) or a number, in the map's units; pixels above it are foreground. None: `mixture_threshold`.

    Returns:
        (N, H, W) bool; all false where the threshold is NaN or the map is not finite.

    Raises:
        UserError: maps are not (N, H, W), or not one threshold for each.

    Example:
        >>> import torch
        >>> foreground(torch.tensor([[[0.0, 0.1, 0.9]]])).tolist()
        [[[False, False, True]]]
    """
    check_shape(maps)
    cut = mixture_threshold(maps) if threshold is None else as_double(torch.as_tensor(threshold, dtype=torch.float64))
    if cut.shape not in (torch.Size([]), torch.Size([len(maps)])):
        raise UserError(f"threshold has the shape {tuple(cut.shape)}; a number or one for each of {len(maps)} maps.")
    values, finite = native_rows(maps)
    cut = cut.to(values.device).expand(len(maps)).masked_fill(~finite, NAN)
    return _smooth(above(values, cut[:, None]).reshape(maps.shape))


def mean_iou(maps: Tensor, masks: Tensor, threshold: Tensor | float | None = None) -> Tensor:
    """Mean of the IoU of the foreground and of the background of a map; see :func:`foreground`.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool.
        threshold: as in :func:`foreground`.

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
    return mixture_iou(maps, masks, threshold)[1]


def mixture_iou(maps: Tensor, masks: Tensor, threshold: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
    """IoU of the foreground, and its mean with that of the background; arguments and errors as :func:`mean_iou`.

    Returns:
        iou, miou: (N,) float64 each; NaN where the map is not finite, there is no threshold, or a union is empty.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[True, True, False, False]]])
        >>> iou, miou = mixture_iou(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), masks)
        >>> iou.item(), round(miou.item(), 4)
        (0.5, 0.5833)
    """
    _, finite = native_rows(maps)
    mask_rows(masks, maps)
    cut = mixture_threshold(maps) if threshold is None else as_double(torch.as_tensor(threshold))
    return both_ious(foreground(maps, cut), masks, finite & ~cut.to(finite.device).isnan())


def paper_iou(heat: Tensor, masks: Tensor, threshold: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """IoU and mean IoU as the published code computes them: thresholded where the map is small, then brought to the image.

    Mixture on the raw values, smoothing on the map's own grid, bilinear resize of the binary map, rounding.

    Args:
        heat: (N, h, w) float, raw attention on the latents' grid.
        masks: (N, H, W) bool, on the image's.
        threshold: (N,), where it is known already; None: ``mixture_threshold(heat, "paper")``.

    Returns:
        iou, miou: (N,) float64 each; NaN as in :func:`mixture_iou`.

    Raises:
        UserError: maps are not (N, h, w), or masks are not N boolean images.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> masks[:, :2] = True
        >>> [score.item() for score in paper_iou(torch.tensor([[[0.9], [0.1]]]), masks)]
        [1.0, 1.0]
    """
    mask_rows(masks, masks)
    cut = mixture_threshold(heat, "paper") if threshold is None else threshold
    small = foreground(heat, cut)
    # Above one half, as rounding half to even has it.
    return both_ious(resize_maps(small.float(), (masks.shape[1], masks.shape[2])) > 0.5, masks, ~cut.isnan())


def both_ious(pred: Tensor, masks: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of the true pixels, and its mean with that of the false ones, (N,) each; NaN where ``where`` (N,) is false.

    Raises:
        UserError: not boolean, or shapes differ.
    """
    a, b = mask_rows(pred, pred, "predictions"), mask_rows(masks, pred)
    both = count_true(a & b).double()
    either = count_true(a) + count_true(b) - both
    iou, background = both / either, (a.shape[1] - either) / (a.shape[1] - both)  # counts: the rest needs no look
    return defined(iou, where), defined((iou + background) / 2, where)


def multi_threshold_iou(maps: Tensor, masks: Tensor, thresholds: Sequence[float] = BIOVIL_THRESHOLDS) -> Tensor:
    """Mean over fixed thresholds of the IoU of the foreground, each map scaled from 0 to 1 before; no smoothing.

    Source: BioViL (Boecking et al., ECCV 2022) as third-party code computes it: spec/tradeoff.md, section 6.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool.
        thresholds: from 0 to below 1; pixels above one are foreground.

    Returns:
        (N,) float64; NaN where the map is constant or not finite.

    Raises:
        UserError: shapes differ, masks are not boolean, or a threshold outside 0 to 1.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[False, True, True, True]]])
        >>> round(multi_threshold_iou(torch.tensor([[[0.0, 0.25, 0.45, 1.0]]]), masks).item(), 4)
        0.7333
    """
    if not thresholds or not all(0 <= cut < 1 for cut in thresholds):
        raise UserError(f"thresholds are {list(thresholds)}; numbers from 0 to below 1 are expected.")
    values, finite = native_rows(maps)
    inside = mask_rows(masks, maps)
    low, high = (bound.double()[:, None] for bound in bounds(values))
    size = count_true(inside)
    total = torch.zeros_like(low[:, 0])
    for cut in thresholds:
        pred = above(values, low + cut * (high - low))
        both = count_true(pred & inside).double()
        total += both / (count_true(pred) + size - both)  # the maximum is above every threshold: no empty union
    return defined(total / len(thresholds), finite & varies(values))


def _smooth(binary: Tensor) -> Tensor:
    """3 x 3 majority of the interior pixels of (N, H, W) bool."""
    if min(binary.shape[1:]) < 3:
        return binary
    ones = binary.view(torch.uint8)
    across = ones[:, :, :-2] + ones[:, :, 1:-1] + ones[:, :, 2:]
    smooth = binary.clone()
    smooth[:, 1:-1, 1:-1] = across[:, :-2] + across[:, 1:-1] + across[:, 2:] >= 5
    return smooth
