"""Every score of a sample from its map on the latents' grid, in one pass. Source: spec/tradeoff.md, section 6."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.auroc import pixel_auroc
from meddiff.metrics.functional.boxes import Boxes, box_masks
from meddiff.metrics.functional.checks import NAN, as_double, check_shape, mask_rows
from meddiff.metrics.functional.cnr import box_contrast_to_noise_ratio, contrast_to_noise_ratio, region_moments
from meddiff.metrics.functional.distance import centre_distance
from meddiff.metrics.functional.iou import both_ious, foreground, mixture_threshold, multi_threshold_iou, paper_iou
from meddiff.metrics.functional.resize import resize_maps, resize_masks
from meddiff.metrics.functional.top1 import pointing_game

#: What :func:`score_grid_maps` returns, in this order.
SAMPLE_COLUMNS = (
    "cnr",
    "auroc",
    "top1",
    "iou",
    "miou",
    "miou_biovil",
    "iou_paper",
    "miou_paper",
    "distance",
    "cnr_abs",
    "cnr_box",
    "cnr_biased",
    "cnr_grid",
    "cnr_paper",
)

#: Samples scored at once, and pixels of their images: more only takes memory.
FITTED, PIXELS = 8, 2**21


def score_grid_maps(heat: Tensor, masks: Tensor, boxes: Sequence[Boxes] | None = None) -> dict[str, Tensor]:
    """All scores of each sample; images are scored one after the other, so that a large batch needs little memory.

    Unless said otherwise a map is brought to the image (bilinear) and scored against the mask there.

    ============ ==================================================================================================
    cnr          signed, union of boxes, variances with n - 1
    auroc, top1  pixel AUROC with ties by half; first maximum in the mask
    iou, miou    foreground, and mean with the background, over the mixture threshold of the standardised map
    miou_biovil  mean IoU at .1, .2, .3, .4 and .5 of the map from 0 to 1
    iou_paper,   as iou and miou, but raw values in the fit, and binary before the map is brought to the image
    miou_paper
    distance     pixels of the image between the centres of the foreground and of the box
    cnr_abs      absolute value of cnr
    cnr_box      mean over boxes of each box against what lies in none
    cnr_biased   cnr with variances divided by n
    cnr_grid     cnr on the latents' grid
    cnr_paper    map from 0 to 1, bilinear, signed, n - 1, union: a positive affine change does not touch the ratio, so
                 it is cnr, under the name by which the published tables are looked up
    ============ ==================================================================================================

    Args:
        heat: (N, h, w) float; scored as float32.
        masks: (N, H, W) bool, true inside, on the image's grid (the native size for scores there).
        boxes: N arrays (K, 4) of x, y, width, height in pixels of the masks. Without them distance and cnr_box are NaN,
            and cnr_grid takes the resized mask instead of the boxes on the small grid.

    Returns:
        :data:`SAMPLE_COLUMNS`, (N,) float64 each on the device of the maps; NaN where undefined (see each function).
        A map that is constant or not finite is NaN in every column.

    Raises:
        UserError: maps are not (N, h, w), masks are not N boolean images, or boxes are not N arrays of boxes.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 32, 32, dtype=torch.bool)
        >>> masks[0, 8:16, 4:12] = True
        >>> heat = torch.zeros(1, 8, 8)
        >>> heat[0, 2:4, 1:3] = torch.tensor([[1.0, 0.9], [0.8, 0.9]])
        >>> scores = score_grid_maps(heat, masks, [torch.tensor([[4, 8, 8, 8]])])
        >>> {name: round(scores[name].item(), 3) for name in ("auroc", "top1", "distance", "iou", "cnr", "cnr_grid")}
        {'auroc': 1.0, 'top1': 1.0, 'distance': 0.0, 'iou': 0.906, 'cnr': 3.628, 'cnr_grid': 11.023}
    """
    _keep_memory()
    check_shape(heat)
    mask_rows(masks, masks)
    if len(masks) != len(heat) or (boxes is not None and len(boxes) != len(heat)):
        counts = f"{len(masks)} masks" + ("" if boxes is None else f" and {len(boxes)} arrays of boxes")
        raise UserError(f"{counts} for {len(heat)} maps: one for each is needed.")
    heat, masks = heat.detach().float(), masks.to(heat.device)
    if len(heat) == 0:
        return {name: as_double(heat.new_zeros(0)) for name in SAMPLE_COLUMNS}
    parts = []
    size = max(1, min(FITTED, PIXELS // masks.shape[1:].numel()))
    for start in range(0, len(heat), size):
        some = slice(start, start + size)
        parts.append(_image_scores(heat[some], masks[some], None if boxes is None else boxes[some]))
    scores = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    scores["cnr_grid"] = contrast_to_noise_ratio(heat, _grid_masks(masks, boxes, (heat.shape[1], heat.shape[2])))
    return {name: scores[name] for name in SAMPLE_COLUMNS}


@cache
def _keep_memory() -> None:
    """Once a process: let glibc keep freed memory. A quarter of the time went into pages given back after every step.

    By default it hands the megabytes of a temporary back to the system when they are freed, and each page of the next
    one costs a fault. Freeing a block of nearly 32 MB, its largest threshold, raises what it keeps to 64 MB. The block
    is never touched; other allocators do not mind.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def _image_scores(heat: Tensor, masks: Tensor, boxes: Sequence[Boxes] | None) -> dict[str, Tensor]:
    """The columns of some samples (N, h, w) that are scored on the image (N, H, W)."""
    full, cut = resize_maps(heat, (masks.shape[1], masks.shape[2])), mixture_threshold(heat)
    regions, pred = region_moments(full, masks), foreground(full, cut)
    cnr = regions.ratio()
    scores = {"cnr": cnr, "cnr_abs": cnr.abs(), "cnr_biased": regions.ratio(unbiased=False), "cnr_paper": cnr}
    scores |= {"auroc": pixel_auroc(full, masks), "top1": pointing_game(full, masks)}
    scores["iou"], scores["miou"] = both_ious(pred, masks, regions.finite & ~cut.isnan())
    scores["iou_paper"], scores["miou_paper"] = paper_iou(heat, masks)
    scores["miou_biovil"] = multi_threshold_iou(full, masks)
    if boxes is None:
        return scores | dict.fromkeys(("cnr_box", "distance"), torch.full_like(cnr, NAN))
    return scores | {
        "cnr_box": _box_scores(full, masks, boxes, cnr),
        "distance": centre_distance(pred, boxes).to(cnr.device),
    }


def _box_scores(full: Tensor, masks: Tensor, boxes: Sequence[Boxes], cnr: Tensor) -> Tensor:
    """The ratios box by box; one box that is the whole mask has the ``cnr`` (N,) of the mask already."""
    scores = cnr.clone()
    for n, table in enumerate(boxes):
        parts = box_masks(table, (masks.shape[1], masks.shape[2]))
        if len(parts) != 1 or not torch.equal(parts[0], masks[n].cpu()):
            scores[n : n + 1] = box_contrast_to_noise_ratio(full[n : n + 1], [table])
    return scores


def _grid_masks(masks: Tensor, boxes: Sequence[Boxes] | None, size: tuple[int, int]) -> Tensor:
    """The masks (N, h, w) on the latents' grid: boxes by their scaled edges, at least one pixel each."""
    if boxes is None:
        return resize_masks(masks, size)
    scale = (size[0] / masks.shape[1], size[1] / masks.shape[2])
    return torch.stack([box_masks(table, size, scale).any(dim=0) for table in boxes]).to(masks.device)
