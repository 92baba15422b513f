"""Are generated images new, or training images again? AuthPct as a share, and the copying test C_T.

Source: Alaa et al. (ICML 2022, authenticity), Meehan et al. (AISTATS 2020, C_T). Both need held-out real images beside them:
how near a real image that was never trained on lies to the training images is the zero of both.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.metrics.functional.neighbours import CHUNK, check_sets, nearest

#: Cells with fewer generated images, or with this many, say nothing (the published code's rule).
FEW = 20


def authentic(train: Tensor, generated: Tensor, chunk: int = CHUNK) -> Tensor:
    """Which generated images (N, D) lie further from their nearest training image than another training image does.

    Returns:
        (N,) bool; the mean is the share (AuthPct is a percentage, and in one code 50 is taken off).

    Raises:
        UserError: as :func:`~meddiff.metrics.functional.neighbours.check_sets`, or one training image.

    Example:
        >>> import torch
        >>> train = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> authentic(train, torch.tensor([[0.2], [2.0], [7.1], [12.0]])).tolist()
        [False, False, False, True]
    """
    train, generated = check_sets(train, generated, ("training", "generated"))
    apart, places = nearest(generated, train, chunk=chunk)
    used, where = places[:, 0].unique(return_inverse=True)
    others = nearest(
        train[used], train, k=min(2, len(train)), chunk=chunk
    )  # itself is among them, or an exact copy of it
    if len(train) < 2:
        raise UserError("one training image has no other one to compare with: give more.")
    return others[0][where, 1] < apart[:, 0]


def copying_score(held_out: Tensor, generated: Tensor) -> float:
    """Z of the Mann-Whitney test of distances to the nearest training image; negative: generated images lie nearer.

    Args:
        held_out: (n,) distances of held-out images.
        generated: (m,) distances of generated ones; a tie counts one half.

    Returns:
        As published, with its correction for continuity; NaN where a side is empty.

    Example:
        >>> import torch
        >>> round(copying_score(torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0.5, 2.0, 0.5, 0.2])), 6)
        -1.414214
    """
    from scipy.stats import rankdata

    n, m = len(held_out), len(generated)
    if not n or not m:
        return math.nan
    ranks = rankdata(torch.cat([generated, held_out]).double().cpu().numpy())
    wins = float(ranks[:m].sum()) - m * (m + 1) / 2  # pairs in which the generated one is further
    return (wins - (n * m / 2 - 0.5)) / math.sqrt(n * m * (n + m + 1) / 12)


def copying_test(
    train: Tensor,
    held_out: Tensor,
    generated: Tensor,
    components: int = 64,
    cells: int = 3,
    seed: int = 0,
    fewest: int = FEW,
    chunk: int = CHUNK,
) -> float:
    """C_T: :func:`copying_score` in cells of the training images, weighted by the held-out images of each.

    Args:
        train: (T, D); held_out: (N, D); generated: (M, D), float.
        components: principal components of the training images that are kept; 0 keeps the features as they are.
        cells: of k-means on the training images, started by ``seed``.
        fewest: a cell counts with more generated images than this.

    Returns:
        About 0 for images as new as held-out ones, below -3 for copies; NaN where no cell counts: no legal value stands for it.

    Raises:
        UserError: as :func:`~meddiff.metrics.functional.neighbours.check_sets`.
    """
    train, held_out = check_sets(train, held_out, ("training", "held-out"))
    _, generated = check_sets(train, generated, ("training", "generated"))
    if components:
        centre = train.mean(dim=0)
        axes = torch.linalg.eigh((train - centre).T @ (train - centre)).eigenvectors[:, -components:]  # (D, components)
        train, held_out, generated = ((one - centre) @ axes for one in (train, held_out, generated))
    cell = [np.zeros(len(one), np.int64) for one in (held_out, generated)]
    if cells > 1:
        cell = _cells(train, (held_out, generated), min(cells, len(train)), seed)
    real, fake = (nearest(one, train, chunk=chunk)[0][:, 0] for one in (held_out, generated))
    found, weights = [], []
    for number in range(cells):
        mine = [torch.from_numpy(one == number) for one in cell]
        if int(mine[1].sum()) > fewest and bool(mine[0].any()):
            found.append(copying_score(real[mine[0]], fake[mine[1]]))
            weights.append(float(mine[0].double().mean()))
    return math.fsum(w * z for w, z in zip(weights, found, strict=True)) / math.fsum(weights) if weights else math.nan


def _cells(train: Tensor, sets: tuple[Tensor, ...], cells: int, seed: int) -> list[NDArray[np.int64]]:
    from sklearn.cluster import KMeans

    start = int(generator(seed, "cells of the copying test").integers(2**31))
    fitted = KMeans(cells, n_init=4, random_state=start).fit(train.cpu().numpy())
    return [fitted.predict(one.cpu().numpy()).astype(np.int64) for one in sets]
