"""Which layers to average: contrast of any subset of maps from two moments, and a greedy search over subsets.

A mean of maps has the mean of their contrasts over the root of the quadratic form of their noise, so a search needs no map:
``d = mean inside - mean outside`` and ``V = covariance inside + covariance outside`` of G groups of layers are enough.
The search reads the *signed* contrast-to-noise ratio of the maps as they are. The published search scales a map by
``a - a / (max - min)``, which is ``a (1 - 1 / r)`` and turns the sign of every map of range r < 1, so that it finds the worst
layers; it tells the score of the phrases that it chose by. Source: own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError

Floats = NDArray[np.float64]


class Contrast(NamedTuple):
    """Of G maps on one place.

    Attributes:
        difference: (G,) mean inside less mean outside.
        noise: (G, G) sum of the covariances (n - 1) inside and outside.
    """

    difference: Floats
    noise: Floats


def contrast_of(maps: Tensor, mask: Tensor) -> Contrast:
    """Moments of maps (G, H, W) on a place (H, W) bool; NaN where a side has fewer than two pixels.

    Raises:
        UserError: shapes differ.
    """
    if maps.shape[1:] != mask.shape:
        raise UserError(f"maps have the shape {tuple(maps.shape)} and the mask {tuple(mask.shape)}: resize one first.")
    rows, inside = maps.detach().double().cpu().flatten(1).numpy(), mask.cpu().flatten().numpy()
    sides = [rows[:, inside], rows[:, ~inside]]  # (G, n) each
    if min(side.shape[1] for side in sides) < 2:
        return Contrast(np.full(len(rows), math.nan), np.full((len(rows), len(rows)), math.nan))
    difference = sides[0].mean(axis=1) - sides[1].mean(axis=1)
    noise = sum(np.cov(side).reshape(len(rows), len(rows)) for side in sides)
    return Contrast(difference, np.asarray(noise))


def subset_cnr(contrast: Contrast, weights: Floats) -> float:
    """Contrast-to-noise ratio of the weighted mean of the maps, signed; weights (G,). NaN without noise.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[5.0, 3.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 5.0]]])
        >>> contrast = contrast_of(maps, torch.tensor([[True, True], [False, False]]))
        >>> [round(subset_cnr(contrast, np.array(one)), 4) for one in ([1.0, 0.0], [0.0, 1.0])]
        [2.2136, -2.2136]
    """
    power = float(weights @ contrast.noise @ weights)
    return float(weights @ contrast.difference) / math.sqrt(power) if power > 0 else math.nan


def mean_cnr(contrasts: Sequence[Contrast], weights: Floats) -> float:
    """Mean over phrases; undefined ones are left out. NaN where all are."""
    found = [one for contrast in contrasts if math.isfinite(one := subset_cnr(contrast, weights))]
    return math.fsum(found) / len(found) if found else math.nan


def greedy_subset(contrasts: Sequence[Contrast], counts: Sequence[int]) -> tuple[int, ...]:
    """The groups whose mean has the highest mean CNR over phrases: the best one, then whichever adds most, while one does.

    Args:
        contrasts: of phrases to choose by; never those that are told.
        counts: (G,) layers of each group: all layers of the chosen groups count alike.

    Returns:
        Numbers of groups, rising; all of them where nothing can be told.

    Raises:
        UserError: no groups.
    """
    number = len(counts)
    if not number:
        raise UserError("There are no groups of layers to choose from.")
    chosen: tuple[int, ...] = ()
    best = -math.inf
    while len(chosen) < number:
        tried = [(mean_cnr(contrasts, subset_weights((*chosen, one), counts)), -one) for one in range(number)]
        open_ones = [
            one for one in tried if -one[1] not in chosen and math.isfinite(one[0])
        ]  # of equal ones the first group
        if not open_ones or max(open_ones)[0] <= best:
            break
        best, place = max(open_ones)
        chosen = (*chosen, -place)
    return tuple(sorted(chosen)) or tuple(range(number))


def subset_weights(chosen: Sequence[int], counts: Sequence[int]) -> Floats:
    """(G,) weights of groups, by their layers; they sum to 1.

    Example:
        >>> subset_weights((0, 2), (1, 5, 3)).tolist()
        [0.25, 0.0, 0.75]
    """
    weights = np.zeros(len(counts))
    for one in chosen:
        weights[one] = counts[one]
    found: Floats = weights / weights.sum()
    return found
