"""Precision, recall, density and coverage of generated against real features.

Source: Kynkaanniemi et al. (NeurIPS 2019), Naeem et al. (ICML 2020); strict comparisons, radii to the k-th nearest other image.
All four are 1 for copies of the reference: read them with a number of copies beside them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.neighbours import CHUNK, check_sets, distances, nearest


class Coverage(NamedTuple):
    """``precision``: generated images that lie where real ones do. ``recall``: real images that lie where generated ones do.
    ``density``: real neighbourhoods a generated image lies in, over k; 1 in the mean where both are alike. ``coverage``: real
    images with a generated one in their neighbourhood."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, k: int = 5, chunk: int = CHUNK) -> Coverage:
    """Precision, recall, density and coverage.

    Only figures of one N (both sets) and one k compare.

    Args:
        real: (N, D) float.
        fake: (M, D) float.
        k: the neighbour that gives a radius.
        chunk: rows of a block; changes no result.

    Raises:
        UserError: as :func:`~meddiff.metrics.functional.neighbours.check_sets`, or a set of k images or fewer.

    Example:
        >>> import torch
        >>> real, fake = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [4.0]])
        >>> [round(value, 6) for value in prdc(real, fake, k=1)]
        [0.666667, 0.75, 0.666667, 0.5]
    """
    real, fake = check_sets(real, fake, ("real", "generated"))
    if min(len(real), len(fake)) <= k:
        raise UserError(
            f"{len(real)} real and {len(fake)} generated images: with k = {k} each set needs {k + 1} or more."
        )
    radii, fake_radii = (nearest(one, one, k, itself=True, chunk=chunk)[0][:, -1] for one in (real, fake))
    inside = torch.zeros(
        len(fake), dtype=torch.int64, device=real.device
    )  # real neighbourhoods around each generated image
    reached = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = reached.clone()
    for i in range(0, len(real), chunk):
        rows = slice(i, i + chunk)
        for j in range(0, len(fake), chunk):
            columns = slice(j, j + chunk)
            apart = distances(real[rows], fake[columns])  # (rows, columns)
            within = apart < radii[rows, None]
            inside[columns] += within.sum(dim=0)
            covered[rows] |= within.any(dim=1)
            reached[rows] |= (apart < fake_radii[None, columns]).any(dim=1)
    share = inside.double().mean() / k
    return Coverage(
        *(float(one) for one in ((inside > 0).double().mean(), reached.double().mean(), share, covered.double().mean()))
    )


def coverage_ceiling(real: int, fake: int, k: int = 5) -> float:
    """Expected coverage of a perfect generator: that not all k nearest of an image among all others are real.

    Args:
        real: N; fake: M.

    Example:
        >>> round(coverage_ceiling(500, 500), 5)
        0.96922
    """
    missed = 1.0
    for i in range(k):
        missed *= (real - 1 - i) / (real + fake - 1 - i)
    return 1.0 - missed
