"""Area under the ROC curve over the pixels of each map. Source: spec/tradeoff.md, section 6; Mann-Whitney form."""

import numpy as np
import torch
from torch import Tensor

from meddiff.metrics.functional.checks import count_true, defined, mask_rows, native_rows, varies


def pixel_auroc(maps: Tensor, masks: Tensor) -> Tensor:
    """Probability that a pixel inside scores higher than one outside, a tie counting one half.

    The same number as scikit-learn's ``roc_auc_score`` over the pixels of one map: counts of pairs, exact in float64.

    Args:
        maps: (N, H, W) float; float64 takes several times as long as float32.
        masks: (N, H, W) bool, true inside.

    Returns:
        (N,) float64 in [0, 1]; NaN where nothing is inside or outside, or the map is constant or not finite.

    Raises:
        UserError: shapes differ, or masks are not boolean.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[True, True, False, False]]])
        >>> pixel_auroc(torch.tensor([[[0.9, 0.4, 0.4, 0.1]]]), masks).item()
        0.875
    """
    values, finite = native_rows(maps)
    inside = mask_rows(masks, maps)
    n_in = count_true(inside).double()
    pairs = n_in * (values.shape[1] - n_in)
    usable = finite & varies(values) & (pairs > 0)
    wins = torch.zeros_like(pairs)
    count = _wins_by_bits if values.dtype == torch.float32 else _wins_by_ranks
    for n in usable.nonzero().flatten().tolist():
        wins[n] = count(values[n], inside[n])
    return defined(wins / pairs, usable)


def _wins_by_bits(values: Tensor, inside: Tensor) -> float:
    """Pairs (inside, outside) in which the inside is higher, ties by half, of float32 values (P,).

    The bits of a float, read as an integer, order as the float does; with the mask as the lowest bit one sort of short
    integers (which torch sorts by radix, ten times faster than floats) brings values and mask into order together.
    """
    order = (values + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    if int(order.min()) < 0:  # negative numbers order backwards
        order = torch.where(order < 0, -(2**31) - order, order)
    low, high = int(order.min()), int(order.max())
    wide = high - low >= 2**31
    half = 0 if wide else 2**30  # around zero the doubled keys just fit into 32 bits
    order = order.long() if wide else order  # wide: values of both signs that are very far apart
    keys = order.sub_(low).sub_(half).mul_(2).add_(inside).sort().values.cpu().numpy()
    positive = (keys.astype(np.uint8) & 1).view(bool)
    places = np.flatnonzero(positive)
    count = len(places)
    # Of equal values those outside come first, so all of them are counted here and half of them taken back below.
    wins = int(places.sum()) - count * (count - 1) // 2
    seams = np.flatnonzero(positive[1:] & ~positive[:-1]) + 1  # where pixels outside are followed by one inside:
    seams = seams[keys[seams] - keys[seams - 1] == 1]  # of equal values
    tied_out = seams - np.searchsorted(keys, keys[seams] - 1)
    tied_in = np.searchsorted(keys, keys[seams], side="right") - seams
    return wins - int((tied_out * tied_in).sum()) / 2


def _wins_by_ranks(values: Tensor, inside: Tensor) -> float:
    """As :func:`_wins_by_bits` for float64 values (P,): equal values share the mean of their ranks."""
    ordered, order = values.sort()
    counts = ordered.unique_consecutive(return_counts=True)[1]
    ranks = counts.cumsum(0) - (counts.double() - 1) / 2
    positive = inside[order]
    count = int(positive.sum())
    return float(ranks.repeat_interleave(counts)[positive].sum()) - count * (count + 1) / 2
