"""Is a generated image a training image? Distances to the nearest, calibrated by the others and by held-out images.

A distance alone says nothing on chest X-rays: two thirds of held-out patients lie nearer to a training image than the level
that is published for photographs. So the distance is divided by that to the next neighbours (:func:`calibrated_ratio`), or
compared with what held-out images have (:func:`copy_threshold`). Pixels are compared under small shifts
(:func:`nearest_pixels`). Source: Carlini et al. (USENIX Security 2023), the ratio; shifts, borders and thresholds own.
"""

from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double
from meddiff.metrics.functional.neighbours import nearest

#: Side of the grid that pixels are compared on, the border that is cut off, and the shifts that are tried: as many pixels.
SIDE, BORDER = 64, 2
NEIGHBOURS, SHARE = 50, 0.5


def calibrated_ratio(
    queries: Tensor, train: Tensor, neighbours: int = NEIGHBOURS, by_reference: bool = False
) -> Tensor:
    """Distance to the nearest training image over half of the mean distance to the nearest ``neighbours``.

    1 or less makes a candidate.

    Args:
        queries: (N, D) float; train: (T, D) float.
        by_reference: the neighbours are those of the nearest training image, itself among them, and distances are from there
            (the other reading in public code); false: the generated image's own.

    Returns:
        (N,) float64.

    Raises:
        UserError: as :func:`~meddiff.metrics.functional.neighbours.nearest`.

    Example:
        >>> import torch
        >>> train = torch.tensor([[0.0, 0], [4, 0], [0, 4], [4, 4], [10, 10]])
        >>> [round(value, 5) for value in calibrated_ratio(torch.tensor([[0.1, 0], [2, 2]]), train, 3).tolist()]
        [0.07499, 2.0]
    """
    apart, places = nearest(queries, train, neighbours)
    others = nearest(train[places[:, 0]], train, neighbours)[0] if by_reference else apart
    return ratio_of(apart[:, 0], others)


def ratio_of(apart: Tensor, others: Tensor) -> Tensor:
    """The ratio (N,) of distances (N,) to distances (N, k) of neighbours; NaN where all of them are 0."""
    return apart / (SHARE * others.mean(dim=1))


def copy_threshold(held_out: Tensor, share: float = 0.01) -> float:
    """The distance that this share of held-out images falls short of: what is nearer counts as a copy.

    Args:
        held_out: (N,) distances of held-out images to their nearest training image. Below 1,000 the quantile is coarse: of
            100 it lies between the least two.

    Raises:
        UserError: no image, or distances that are not finite.

    Example:
        >>> import torch
        >>> copy_threshold(torch.arange(101.0))
        1.0
    """
    if not len(held_out) or not bool(held_out.isfinite().all()):
        raise UserError("A threshold of copies needs held-out images with finite distances.")
    return float(as_double(held_out).quantile(share))


def held_out_share(distances: Tensor, share: float = 0.01) -> Tensor:
    """Which held-out images would count as copies, each half under the threshold of the other.

    Args:
        distances: (N,) of held-out images, in an order that has nothing to do with them; odd and even places are the halves.

    Returns:
        (N,) bool.
    """
    flags = torch.zeros(len(distances), dtype=torch.bool, device=distances.device)
    for own in range(2):
        if len(distances) > 1:
            flags[own::2] = distances[own::2] < copy_threshold(distances[1 - own :: 2], share)
    return flags


def pixel_grid(images: Tensor, side: int = SIDE) -> Tensor:
    """Grey area means (B, side * side) float32 of images (B, C, H, W), square or not.

    Raises:
        UserError: images of fewer pixels than the grid.
    """
    if min(images.shape[-2:]) < side:
        raise UserError(f"images of {images.shape[-2]} x {images.shape[-1]} px are smaller than the grid of {side} px.")
    grey = images.float().mean(dim=1, keepdim=True)  # (B, 1, H, W)
    return F.adaptive_avg_pool2d(grey, side).flatten(1)


class PixelNeighbours(NamedTuple):
    """Of each generated image: distances (N, k) to its nearest training images under the best shift, rising, and their places
    (N, k)."""

    distances: Tensor
    places: Tensor

    @property
    def ratio(self) -> Tensor:
        """The calibrated ratio (N,)."""
        return ratio_of(self.distances[:, 0], self.distances)


def nearest_pixels(
    generated: Tensor,
    train: Tensor,
    k: int = NEIGHBOURS,
    border: int = BORDER,
    shifts: int = BORDER,
    mirrored: bool = False,
    chunk: int = 16,
) -> PixelNeighbours:
    """Nearest training images in pixels, each image with mean 0 and standard deviation 1, under the best of small shifts.

    The k nearest without a shift are found first and only those are shifted. A border is cut off all, so that a shift brings
    in pixels of the image and not of its other end.

    Args:
        generated: (N, side * side) of :func:`pixel_grid`.
        train: (T, side * side).
        border: pixels of the grid that are cut off.
        shifts: pixels of the grid that the generated image is moved by, at most, either way; no more than the border.
        mirrored: the generated images are mirrored first: a run that flips its images would copy them so.
        chunk: generated images at a time; changes no result.

    Raises:
        UserError: no grids, fewer training images than k, or a shift beyond the border.

    Example:
        >>> import torch
        >>> train = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
        >>> moved = train[:1].reshape(8, 8).roll(1, 1).reshape(1, 64)
        >>> found = nearest_pixels(moved, train, k=5, border=1, shifts=1)
        >>> found.places[0, 0].item(), round(found.distances[0, 0].item(), 6)
        (0, 0.0)
    """
    if shifts > border:
        raise UserError(f"a shift of {shifts} px needs a border of as many, and {border} are cut off.")
    size = int(generated.shape[1] ** 0.5)
    if generated.shape[1:] != train.shape[1:] or size * size != generated.shape[1] or size <= 2 * border:
        raise UserError(
            f"grids have the shapes {tuple(generated.shape)} and {tuple(train.shape)}; (N, side * side) twice is needed."
        )
    if not bool(generated.isfinite().all() and train.isfinite().all()):
        raise UserError("grids hold values that are not finite: look at the images they come from.")
    k = min(k, len(train))
    reference = _window(as_double(train).reshape(-1, size, size), border, 0, 0)
    found, places = [], []
    moves = list(product(range(-shifts, shifts + 1), repeat=2))
    for part in as_double(generated).to(reference.device).reshape(-1, size, size).split(chunk):
        part = part.flip(2) if mirrored else part
        near = nearest_unit(_window(part, border, 0, 0), reference, k)  # (n, k)
        moved = torch.stack([_window(part, border, dy, dx) for dy, dx in moves], dim=2)  # (n, P, moves)
        alike = reference[near].bmm(moved).amax(dim=2) / len(reference[0])  # (n, k) correlation under the best move
        closest = (2 - 2 * alike).clamp(min=0.0).sqrt()  # root of the mean squared difference
        order = closest.sort(dim=1, stable=True).indices
        found.append(closest.gather(1, order))
        places.append(near.gather(1, order))
    return PixelNeighbours(torch.cat(found), torch.cat(places))


def nearest_unit(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Places (N, k) of the k nearest among rows of one length, by products: only to choose candidates, the nearest first."""
    return (queries @ points.T).topk(k, dim=1).indices


def _window(grids: Tensor, border: int, dy: int, dx: int) -> Tensor:
    """(N, P) of grids (N, side, side): what lies inside of the border after a move, with mean 0 and standard deviation 1."""
    side = grids.shape[-1]
    cut = grids[:, border + dy : side - border + dy, border + dx : side - border + dx].flatten(1)
    centred = cut - cut.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
