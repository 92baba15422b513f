"""What prototype activations look like over many images: the range of each prototype, and how odd an edited vector is.

The published code sets an edited activation to the largest value of *all* prototypes in a batch, which pushes most of them
far out of their own range, and says nothing of the vector that comes out. Here each prototype has its own level, and an
edited vector its distance from those of real images. Source: Weng et al. 2026 (Patronus); levels and distance own
(spec/patronus_and_visual_analysis.md, A7.1, A11.17, A11.18).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Quantile that an edit sets a prototype to, of its own values.
HIGH, LOW = 0.995, 0.005


def own_levels(activations: Floats, quantile: float = HIGH) -> Floats:
    """A quantile of each prototype's own values: (N, m) -> (m,).

    Example:
        >>> own_levels(np.array([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]]), 0.5).tolist()
        [1.0, 20.0]
    """
    levels: Floats = np.quantile(activations, quantile, axis=0)
    return levels


class Spread(NamedTuple):
    """Where activations of real images lie.

    Attributes:
        mean: (m,).
        root: (m, m), whitens what is centred: ``(s - mean) @ root`` has unit covariance.
        usual: median distance of the real images themselves, each measured with the others alone.
    """

    mean: Floats
    root: Floats
    usual: float


def spread_of(activations: Floats) -> Spread:
    """Mean and covariance of activations (N, m), shrunk towards independent prototypes where images are few.

    The share of the shrinkage is m / (m + N): half where there are as many prototypes as images, so that the inverse exists
    for any N. ``usual`` leaves every image out of the fold that it is measured with: inside of its own covariance an image
    is always near.
    """
    mean, root = _whitening(activations)
    number = len(activations)
    folds = [np.arange(number)[place::FOLDS] for place in range(FOLDS)]
    found = []
    for fold in folds:
        rest = np.delete(np.arange(number), fold)
        if len(fold) and len(rest) > 1:
            middle, other = _whitening(activations[rest])
            found.append(np.linalg.norm((activations[fold] - middle) @ other, axis=1))
    return Spread(mean, root, float(np.median(np.concatenate(found))) if found else float("nan"))


#: Parts that activations are cut into, to measure how far a real image lies from the others.
FOLDS = 5


def _whitening(activations: Floats) -> tuple[Floats, Floats]:
    number, width = activations.shape
    mean = activations.mean(axis=0)
    centred = activations - mean
    covariance = centred.T @ centred / max(1, number - 1)  # (m, m)
    share = width / (width + number)
    own = np.diag(covariance)
    shrunk = (1 - share) * covariance + share * np.diag(own)
    # what never varies must not be divided by: a change of it is as odd as one of the least that does
    least = max(float(own.max()) * 1e-6, 1e-12)
    values, vectors = np.linalg.eigh(shrunk)
    return mean, vectors / np.sqrt(np.maximum(values, least))


def mahalanobis(spread: Spread, activations: Floats) -> Floats:
    """Distance of vectors (B, m) from those of real images, (B,), in units of what a real image usually has.

    1 is as far as a real image lies from the others. A vector with one entry changed leaves its correlated entries behind
    and lies further out: what the denoiser draws of it is no more than a hint then (A11.18).
    """
    found: Floats = np.linalg.norm((activations - spread.mean) @ spread.root, axis=1) / spread.usual
    return found
