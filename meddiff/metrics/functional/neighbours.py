"""Nearest neighbours between two sets of features, block by block: what coverage, novelty and copies are counted from.

Distances come from differences, never from ``x.x + y.y - 2 x.y``: in float32 that breaks ties, and a copy is
not at distance 0. Source: own.
"""

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double

#: Rows of a block; 1,024 x 1,024 float64 are 8 MiB.
CHUNK = 1024


def check_sets(first: Tensor, second: Tensor, names: tuple[str, str] = ("first", "second")) -> tuple[Tensor, Tensor]:
    """Both (N, D) and (M, D) as float64 on one device.

    Raises:
        UserError: another shape, no rows, other numbers of features, or values that are not finite.
    """
    for features, name in zip((first, second), names, strict=True):
        if features.ndim != 2 or not features.numel():
            raise UserError(
                f"{name} features have the shape {tuple(features.shape)}; (N, D) with 1 row or more is needed."
            )
        if not features.isfinite().all():
            raise UserError(f"{name} features hold values that are not finite: look at the images they come from.")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"{first.shape[1]} {names[0]} and {second.shape[1]} {names[1]} features: both need the same extractor."
        )
    first, second = as_double(first), as_double(second)
    return first, second.to(first.device)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (N, M) of float64 rows (N, D) and (M, D); exactly 0 for equal rows."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(
    queries: Tensor, points: Tensor, k: int = 1, itself: bool = False, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The k nearest of ``points`` to each of ``queries``; of equally near ones the first, for any size of the blocks.

    Args:
        queries: (N, D) float.
        points: (M, D) float.
        itself: ``queries`` are ``points``, and none is its own neighbour (an exact copy at another place is).
        chunk: rows of a block; changes no result.

    Returns:
        distances (N, k) float64, rising, and places (N, k) int64 in ``points``.

    Raises:
        UserError: as :func:`check_sets`, or fewer points than neighbours.

    Example:
        >>> import torch
        >>> found, places = nearest(torch.tensor([[0.0], [9.0]]), torch.tensor([[1.0], [-1.0], [7.0]]), k=2)
        >>> found.tolist(), places.tolist()
        ([[1.0, 1.0], [2.0, 8.0]], [[0, 1], [2, 0]])
    """
    queries, points = check_sets(queries, points, ("query", "reference"))
    if not 1 <= k <= len(points) - itself:
        raise UserError(f"{k} neighbours are asked for of {len(points) - itself} other images: give more images.")
    found, places = [], []
    for start, rows in zip(range(0, len(queries), chunk), queries.split(chunk), strict=True):
        best, where = (
            rows.new_full((len(rows), 0), 0.0),
            torch.zeros(len(rows), 0, dtype=torch.int64, device=rows.device),
        )
        for at, block in zip(range(0, len(points), chunk), points.split(chunk), strict=True):
            apart = distances(rows, block)  # (rows, block)
            numbers = torch.arange(at, at + len(block), device=rows.device)
            if itself:
                apart[torch.arange(start, start + len(rows), device=rows.device)[:, None] == numbers] = torch.inf
            both = torch.cat([best, apart], dim=1)  # earlier ones first: a stable sort keeps the first of equals
            order = both.sort(dim=1, stable=True).indices[:, :k]
            best = both.gather(1, order)
            where = torch.cat([where, numbers.expand(len(rows), -1)], dim=1).gather(1, order)
        found.append(best)
        places.append(where)
    return torch.cat(found), torch.cat(places)
