"""Area under the ROC curve over the pixels of each map. Source: spec/tradeoff.md, section 6; Mann-Whitney form."""

import torch
from torch import Tensor

from metrics.functional.checks import defined, map_rows, mask_rows, varies


def pixel_auroc(maps: Tensor, masks: Tensor) -> Tensor:
    """Probability that a pixel inside scores higher than one outside, a tie counting one half.

    The same number as scikit-learn's ``roc_auc_score`` over the pixels of one map, for all maps at once: one sort, and
    average ranks for ties. Ranks are exact in float64. Needs about eight float64 copies of the maps.

    Args:
        maps: (N, H, W) float.
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
    values, finite = map_rows(maps)
    inside = mask_rows(masks, maps)
    values, order = values.sort(dim=1)
    ranks = _average_ranks(values)
    positive = inside.gather(1, order)
    n_in = inside.sum(dim=1).double()
    n_out = values.shape[1] - n_in
    wins = torch.where(positive, ranks, 0.0).sum(dim=1) - n_in * (n_in + 1) / 2
    return defined(wins / (n_in * n_out), finite & varies(values))


def _average_ranks(ordered: Tensor) -> Tensor:
    """Ranks from 1 of sorted rows (N, P) as float64; equal values share the mean of their first and last rank."""
    size = ordered.shape[1]
    position = torch.arange(1, size + 1, device=ordered.device).expand_as(ordered)
    step = ordered[:, 1:] != ordered[:, :-1]
    edge = step.new_ones(len(ordered), 1)
    starts, ends = torch.cat([edge, step], dim=1), torch.cat([step, edge], dim=1)
    first = torch.where(starts, position, 0).cummax(dim=1).values
    last = torch.where(ends, position, size).flip(1).cummin(dim=1).values.flip(1)
    return (first + last).double() / 2
