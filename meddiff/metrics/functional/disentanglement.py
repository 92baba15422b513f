"""Do single latents stand for single attributes? Total AUROC difference, and the attributes that are captured.

Source: Yeats et al. (ECCV 2022) as InfoDiffusion and Patronus use it, spec/patronus_and_visual_analysis.md A8: of each
attribute the AUROC of every single latent, in whichever direction orders better; captured is an attribute whose best latent
reaches 0.75 and of whose entropy no other attribute takes away more than a share of 0.2; TAD is the sum over the captured ones
of the best minus the second best. Measured on the training part of each of 5 folds, and averaged. The spec leaves open
whether the entropy that is taken away is a share of the attribute's own entropy: it is here, as in Yeats et al.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from meddiff.metrics.functional.latent_probe import FOLDS, ROWS, SEED, Bools, checked, folds_of
from meddiff.metrics.statistics import Floats, mean_of_known

LEAST, MOST_SHARED = 0.75, 0.2


class Tad(NamedTuple):
    """What single latents capture.

    Attributes:
        tad: mean over the folds.
        captured: number of captured attributes, mean over the folds.
        best: (A,) AUROC of the best single latent for each attribute, in its better direction; mean over the folds.
        second: (A,) of the second best; 0.5 where there is one latent only.
        latent: (A,) which latent is the best of all rows; -1 where it is undefined.
        sign: (A,) 1 where the attribute raises it, -1 where it lowers it; 0 where it is undefined.
        shared: (A,) the largest share of its entropy that another attribute takes away; mean over the folds.
        in_folds: (A,) share of the folds in which the attribute is captured.
    """

    tad: float
    captured: float
    best: Floats
    second: Floats
    latent: NDArray[np.int64]
    sign: NDArray[np.int64]
    shared: Floats
    in_folds: Floats


def tad(
    activations: Tensor,
    labels: Tensor,
    groups: Sequence[object] | None = None,
    rows: int = ROWS,
    folds: int = FOLDS,
    seed: int = SEED,
) -> Tad:
    """Total AUROC difference with the captured attributes.

    Args:
        activations: (N, m), finite.
        labels: (N, A), 0 or 1, or NaN where it is unknown.
        groups, rows, folds, seed: as for :func:`~meddiff.metrics.functional.latent_probe.latent_auroc`.

    Raises:
        UserError: as there.

    Example:
        >>> import torch
        >>> one, other = torch.arange(40) % 2, torch.arange(40) // 2 % 2
        >>> found = tad(torch.stack([one, other], 1).float(), torch.stack([other, one], 1))
        >>> found.captured, found.latent.tolist()
        (2.0, [1, 0])
    """
    values, known, targets = checked(activations, labels, rows)
    fold = folds_of(None if groups is None else groups[: len(values)], len(values), folds, seed)
    found = []
    for number in range(folds):
        learn = fold != number
        areas = single_areas(values[learn], known[learn], targets[learn])
        found.append((*_two_best(areas), shared_entropy(known[learn], targets[learn])))
    best, second, shared = (np.stack(part) for part in zip(*found, strict=True))  # (folds, A) each
    captured = (best >= LEAST) & (shared <= MOST_SHARED)
    areas = single_areas(values, known, targets)
    signed = np.where(np.isnan(areas), 0.0, areas - 0.5)  # (m, A)
    latent = np.abs(signed).argmax(axis=0)
    defined = np.isfinite(areas).any(axis=0)
    direction = np.where(np.take_along_axis(signed, latent[None], axis=0)[0] < 0, -1, 1)
    return Tad(
        float(np.where(captured, best - second, 0.0).sum(axis=1).mean()),
        float(captured.sum(axis=1).mean()),
        mean_of_known(best.T),
        mean_of_known(second.T),
        np.where(defined, latent, -1),
        np.where(defined, direction, 0),
        mean_of_known(shared.T),
        captured.mean(axis=0),
    )


def single_areas(values: Floats, known: Bools, targets: Floats) -> Floats:
    """Signed AUROC (m, A) of every latent for every attribute; below 0.5 where the attribute lowers the latent, NaN where an
    attribute has not both kinds.

    Args:
        values: (N, m).
        known: (N, A).
        targets: (N, A), 0 and 1 where they are known.

    Example:
        >>> one = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> single_areas(one, np.ones((4, 1), bool), np.array([[1.0], [1.0], [0.0], [0.0]])).tolist()
        [[0.0]]
    """
    from scipy.stats import rankdata

    areas = np.full((values.shape[1], targets.shape[1]), np.nan)
    patterns, which = np.unique(
        known, axis=1, return_inverse=True
    )  # attributes known of the same rows share their ranks
    for number in range(patterns.shape[1]):
        rows, columns = patterns[:, number], np.flatnonzero(which.ravel() == number)
        positive = targets[np.ix_(rows, columns)]  # (n, a)
        ups = positive.sum(axis=0)
        pairs = ups * (len(positive) - ups)
        sums = rankdata(values[rows], axis=0).T @ positive if rows.any() else np.zeros((len(areas), len(columns)))
        with np.errstate(invalid="ignore", divide="ignore"):
            areas[:, columns] = (sums - ups * (ups + 1) / 2) / np.where(pairs > 0, pairs, np.nan)
    return areas


def shared_entropy(known: Bools, targets: Floats) -> Floats:
    """(A,) The largest share of an attribute's entropy that knowing one other attribute takes away; 0 where it is the only
    one, NaN where it does not vary.

    Args:
        known: (N, A).
        targets: (N, A), 0 and 1 where they are known.

    Example:
        >>> same = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
        >>> shared_entropy(np.ones((4, 2), bool), same).tolist()
        [1.0, 1.0]
    """
    ones, zeros = (np.where(known, targets == side, False).astype(float) for side in (1, 0))
    tables = np.stack([[a.T @ b for b in (ones, zeros)] for a in (ones, zeros)])  # (2, 2, A, A): own, other
    with np.errstate(invalid="ignore", divide="ignore"):
        share = tables / tables.sum(axis=(0, 1))
        own, other = share.sum(axis=1), share.sum(axis=0)  # (2, A, A)
        gained = _bits(own) + _bits(other) - _bits(share.reshape(4, *share.shape[2:]))
        found = gained / _bits(own)
    np.fill_diagonal(found, 0.0)
    single = _bits(np.stack([ones.mean(axis=0), zeros.mean(axis=0)])) if len(ones) else np.zeros(known.shape[1])
    largest: Floats = np.nan_to_num(found, nan=0.0).max(axis=1, initial=0.0)
    varies = (single > 0) & (ones.sum(axis=0) > 0) & (zeros.sum(axis=0) > 0)
    return np.where(varies, np.maximum(largest, 0.0), np.nan)


def _bits(shares: Floats) -> Floats:
    """Entropy along the first axis."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = -np.where(shares > 0, shares * np.log2(shares), 0.0).sum(axis=0)
    return found


def _two_best(areas: Floats) -> tuple[Floats, Floats]:
    """(A,) of the best and of the second best latent, in the better direction of each."""
    either = np.sort(np.maximum(areas, 1 - areas), axis=0)  # NaN last
    blank = np.full(areas.shape[1], 0.5)
    second = np.where(np.isnan(either[-1]), np.nan, either[-2] if len(either) > 1 else blank)
    return either[-1], second
