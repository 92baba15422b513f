"""A linear probe: what can be read off hidden states by one matrix. Ridge regression on one-hot answers, in closed form.

Classes count alike, whatever their sizes; the strength of the penalty is chosen on the training examples alone, by leaving
out one at a time (which costs nothing: the residuals of all N fits follow from one decomposition). Source: Alain and Bengio
2017 (probes), Golub, Heath and Wahba 1979 (leaving one out), own code.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
#: Penalties tried, in units of the mean squared singular value of the standardised states.
PENALTIES = tuple(10.0**power for power in range(-5, 4))


class Probe(NamedTuple):
    """A fitted probe.

    Attributes:
        mean, scale: (D,) of the training states, with which states are standardised.
        matrix: (D, K).
        offset: (K,).
        penalty: that was chosen.
    """

    mean: Floats
    scale: Floats
    matrix: Floats
    offset: Floats
    penalty: float

    def predict(self, states: Floats) -> Labels:
        """(M, D) -> number of the likeliest class, (M,)."""
        answers = (states - self.mean) / self.scale @ self.matrix + self.offset  # (M, K)
        found: Labels = answers.argmax(axis=1)
        return found


def fit_probe(states: Floats, labels: Labels) -> Probe:
    """Fit on training examples.

    Args:
        states: (N, D), finite.
        labels: (N,) classes 0 to K - 1, each of which occurs.

    Example:
        >>> probe = fit_probe(np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1]))
        >>> probe.predict(np.array([[-3.0], [0.5]])).tolist()
        [0, 1]
    """
    counts = np.bincount(labels)
    weights = (len(labels) / len(counts) / counts)[labels]  # (N,), mean 1
    answers = np.eye(len(counts))[labels]  # (N, K)
    mean, offset = (np.average(one, axis=0, weights=weights) for one in (states, answers))
    spread = np.sqrt(np.average((states - mean) ** 2, axis=0, weights=weights))  # (D,)
    # what does not vary (beyond rounding) says nothing, and must not be blown up
    scale = np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), spread, np.inf)
    root = np.sqrt(weights)[:, None]
    left, values, right = np.linalg.svd(root * (states - mean) / scale, full_matrices=False)  # (N, R), (R,), (R, D)
    wanted = root * (answers - offset)  # (N, K)
    parts, squares = left.T @ wanted, values**2
    unit = max(float(squares.mean()), 1e-12)
    errors = []
    for penalty in PENALTIES:
        kept = squares / (squares + penalty * unit)  # (R,)
        leverage = (left**2) @ kept + weights / len(labels)  # (N,), that of the offset included
        residuals = (wanted - left @ (kept[:, None] * parts)) / np.maximum(1 - leverage, 1e-6)[:, None]
        errors.append(float((residuals**2).sum()))
    best = PENALTIES[int(np.argmin(errors))]
    matrix = right.T @ ((values / (squares + best * unit))[:, None] * parts)  # (D, K)
    return Probe(mean, scale, matrix, offset, best)
