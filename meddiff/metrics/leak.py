"""How much one concept moves with another when it is edited: the leak, and the shortcut index of two models. No torch.

    leak(A -> B) = mean change of B's score / mean change of A's score, over images, each edited up and down

A model whose edit of a finding A also draws its confounder B has learned them as one. A scorer may mix the two up by itself,
and real anatomy may tie them, so a leak alone proves nothing: the index is the leak of the model that was trained on biased
data less that of one trained on balanced data, by the same scorer on the same images. Source: own; the diagnosis is that of
Weng et al. 2026, which is qualitative (spec/patronus_and_visual_analysis.md, A7.8, C1).
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meddiff.common.draws import generator

Floats = NDArray[np.float64]
#: Draws of a bootstrap, and the share of them that an interval holds.
DRAWS, LEVEL = 2000, 0.95
#: Fewer images than this have no interval.
FEWEST = 10
#: An edit that moves its finding by less, in standard deviations of the score over real images, has no leak: a ratio of two
#: nothings can be anything, and its interval may be narrow.
LEAST = 0.05


class Figure(NamedTuple):
    """A figure with its interval; NaN where there is none."""

    value: float
    low: float
    high: float


class Moves(NamedTuple):
    """What an edit did to each image.

    Attributes:
        keys: (N,) of the images.
        own: (N,) change of A's score from the picture edited down to the one edited up, in standard deviations over
            real images.
        other: (N,) the same of B's score.
    """

    keys: Sequence[Hashable]
    own: Floats
    other: Floats


def leak(own: Floats, other: Floats, weights: Floats | None = None) -> Floats:
    """Ratio of mean changes, (D,): of each draw of images; NaN where A was not moved upwards.

    Args:
        own: (N,) change of A's score.
        other: (N,) change of B's score.
        weights: (D, N) how often each image was drawn; None counts each once, D = 1.

    Example:
        >>> leak(np.array([1.0, 3.0]), np.array([0.5, 1.5])).item()
        0.5
    """
    weights = np.ones((1, len(own))) if weights is None else weights
    up, along = weights @ own, weights @ other
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(up > 0, along / up, np.nan)
    return ratio


def moved(moves: Moves, address: tuple[object, ...] = ()) -> Figure:
    """Mean change of A's score by its own edit. A leak is read only where the whole interval lies above 0."""
    draws = _draws(moves.keys, address)
    with np.errstate(invalid="ignore"):
        means = draws @ moves.own / draws.sum(axis=1)
    return _interval(float(moves.own.mean()), means, moves.keys)


def is_moved(moves: Moves, address: tuple[object, ...] = ()) -> bool:
    """Whether the edit moved its finding: surely, and by as much as could be seen."""
    found = moved(moves, address)
    return found.low > 0 and found.value >= LEAST


def leak_of(moves: Moves, address: tuple[object, ...] = ()) -> Figure:
    """The leak of one model with its bootstrap interval over images; no number where the edit did not move A."""
    if not is_moved(moves, address):
        return Figure(math.nan, math.nan, math.nan)
    value = leak(moves.own, moves.other).item()
    return _interval(value, leak(moves.own, moves.other, _draws(moves.keys, address)), moves.keys)


def shortcut_index(biased: Moves, balanced: Moves, address: tuple[object, ...] = ()) -> Figure:
    """leak(biased) - leak(balanced) with its bootstrap interval over images.

    Images of the same key are drawn together: what is odd about one picture is odd for both models.
    """
    if not (is_moved(biased, address) and is_moved(balanced, address)):
        return Figure(math.nan, math.nan, math.nan)
    keys = sorted(set(map(str, biased.keys)) | set(map(str, balanced.keys)))
    draws = _draws(keys, address)
    place = {key: number for number, key in enumerate(keys)}
    parts, values = [], []
    for moves in (biased, balanced):
        weights = draws[:, [place[str(key)] for key in moves.keys]]
        parts.append(leak(moves.own, moves.other, weights))
        values.append(leak(moves.own, moves.other).item())
    return _interval(values[0] - values[1], parts[0] - parts[1], keys)


def _draws(keys: Sequence[Hashable], address: tuple[object, ...]) -> Floats:
    """(DRAWS, N) how often each image is drawn; images of one key are one."""
    names, place = np.unique(np.asarray([str(key) for key in keys]), return_inverse=True)
    rng = generator("shortcut bootstrap", *address)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS).astype(float)  # (D, K)
    found: Floats = counts[:, place]
    return found


def _interval(value: float, draws: Floats, keys: Sequence[Hashable]) -> Figure:
    """Percentile interval; none for few images, or where more draws than an interval leaves out moved nothing."""
    known = draws[np.isfinite(draws)]
    if len(set(map(str, keys))) < FEWEST or len(known) < LEVEL * len(draws):
        return Figure(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(value, float(low), float(high))
