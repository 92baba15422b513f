"""Does a drawn image show what its prompt said, by a classifier's probabilities? Pearson, agreement, retrieval of the prompt.

Source: spec/evaluation_beyond.md section 6 (label agreement, retrieval among other label sets); the score of a set of labels
and the average over sets own.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import NAN, as_double

#: Probabilities are kept this far from 0 and 1: a classifier that is certain must not rule a prompt out for ever.
CERTAIN = 1e-4


def label_pearson(probabilities: Tensor, labels: Tensor) -> float:
    """Correlation of all probabilities with all labels, both flattened.

    How frequent classes are counts, too: a generator that ignores its prompt is above 0 where some findings are common.

    Args:
        probabilities: (N, C) float.
        labels: (N, C) bool.

    Returns:
        NaN where either does not vary or is not finite.

    Example:
        >>> p = torch.tensor([[0.9, 0.2], [0.3, 0.6], [0.1, 0.7]])
        >>> round(label_pearson(p, torch.tensor([[True, False], [False, True], [False, True]])), 6)
        0.929981
    """
    _same_shape(probabilities, labels)
    x, y = (as_double(one).flatten() for one in (probabilities, labels))
    x, y = x - x.mean(), y - y.mean()
    size = float((x.square().sum() * y.square().sum()).sqrt())
    return float((x * y).sum()) / size if size > 0 and math.isfinite(size) else NAN


def best_thresholds(scores: Tensor, labels: Tensor) -> Tensor:
    """Of each class the threshold with the greatest sensitivity plus specificity on real images (Youden's).

    Args:
        scores: (N, C) float; an image is called positive from its threshold on.
        labels: (N, C) bool.

    Returns:
        (C,) float64, in the middle between two scores; NaN where a class has no positive or no negative image.
    """
    _same_shape(scores, labels)
    values, found = as_double(scores), []
    for column, mine in zip(values.T, labels.to(values.device).T, strict=True):
        yes, no = column[mine].sort().values, column[~mine].sort().values
        if not len(yes) or not len(no):
            found.append(NAN)
            continue
        places = column.unique()
        cuts = torch.cat([places[:1], (places[1:] + places[:-1]) / 2])
        gain = torch.searchsorted(no, cuts) / len(no) - torch.searchsorted(yes, cuts) / len(yes)
        found.append(float(cuts[int(gain.argmax())]))
    return torch.tensor(found, dtype=torch.float64)


def balanced_agreement(scores: Tensor, labels: Tensor, thresholds: Tensor) -> float:
    """Mean over classes of (sensitivity + specificity) / 2 at given thresholds: 0.5 by chance, whatever is frequent.

    Returns:
        NaN where no class has both kinds of images and a threshold.

    Example:
        >>> scores, labels = torch.tensor([[0.9], [0.2], [0.4]]), torch.tensor([[True], [True], [False]])
        >>> balanced_agreement(scores, labels, torch.tensor([0.3]))
        0.25
    """
    _same_shape(scores, labels)
    called = as_double(scores).cpu() >= as_double(thresholds).cpu()
    yes = labels.cpu()
    right = (called == yes).double()
    sides = [(right * side).sum(dim=0) / side.sum(dim=0) for side in (yes.double(), (~yes).double())]  # (C,) each
    found = (sides[0] + sides[1]) / 2
    found = found[found.isfinite() & thresholds.cpu().isfinite()]
    return float(found.mean()) if len(found) else NAN


def label_set_scores(probabilities: Tensor, prior: Tensor, sets: Tensor) -> Tensor:
    """How much more likely each set of labels is for an image than for any: log p(set, image) - log p(set), findings apart.

    Args:
        probabilities: (N, C) of a classifier.
        prior: (C,) its mean probabilities on real images. Without them the commonest set would win for every image.
        sets: (M, C) bool.

    Returns:
        (N, M) float64.

    Example:
        >>> p, prior = torch.tensor([[0.8, 0.5]]), torch.tensor([0.4, 0.5])
        >>> label_set_scores(p, prior, torch.tensor([[True, False], [False, True]])).exp().round(decimals=4).tolist()
        [[2.0, 0.3333]]
    """
    p, base = (as_double(one).clamp(CERTAIN, 1 - CERTAIN) for one in (probabilities, prior))
    yes, no = p.log() - base.log(), (-p).log1p() - (-base).log1p()  # (N, C)
    chosen = as_double(sets).to(p)
    return yes @ chosen.T + no @ (1 - chosen).T


class Retrieved(NamedTuple):
    """Of each image, (N,) float64: is its own candidate first (ties share), 1 / its rank, its score less the others' mean."""

    first: Tensor
    reciprocal: Tensor
    margin: Tensor


def retrieved(scores: Tensor, own: Tensor) -> Retrieved:
    """Rank each image's own prompt among candidates.

    Args:
        scores: (N, K) float, of an image (row) and a candidate.
        own: (N,) column of the image's own.

    Returns:
        NaN where a row is not finite.

    Raises:
        UserError: fewer than two candidates, or not one own column an image.

    Example:
        >>> s = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.4, 0.5], [0.1, 0.6, 0.7]])
        >>> [round(float(one.mean()), 6) for one in retrieved(s, torch.arange(3))]
        [0.666667, 0.833333, 0.366667]
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or own.shape != scores.shape[:1]:
        raise UserError(
            f"scores and own have the shapes {tuple(scores.shape)} and {tuple(own.shape)}; "
            "(N, K) with K of 2 or more and (N,) are expected."
        )
    values = as_double(scores)
    mine = values.gather(1, own[:, None].to(values.device))  # (N, 1)
    greater, tied = (values > mine).sum(dim=1), (values == mine).sum(dim=1) - 1
    first = (greater == 0).double() / (1 + tied)
    reciprocal = 1.0 / (1 + greater + tied / 2)
    margin = mine[:, 0] - (values.sum(dim=1) - mine[:, 0]) / (values.shape[1] - 1)
    whole = values.isfinite().all(dim=1)
    return Retrieved(*(one.masked_fill(~whole, NAN) for one in (first, reciprocal, margin)))


def mean_over_sets(values: Tensor, sets: Sequence[Hashable]) -> float:
    """Mean over sets of labels of the means of their images: what is common does not count more.

    A generator that draws healthy lungs whatever it is asked for is right for every healthy prompt; over images it scores their
    share, over sets one in as many as there are.

    Example:
        >>> mean_over_sets(torch.tensor([1.0, 1.0, 1.0, 0.0]), ["healthy", "healthy", "healthy", "edema"])
        0.5
    """
    found: dict[Hashable, list[float]] = {}
    for name, value in zip(sets, values.tolist(), strict=True):
        found.setdefault(name, []).append(value)
    means = [math.fsum(some) / len(some) for some in found.values()]
    return math.fsum(means) / len(means) if means else NAN


def _same_shape(values: Tensor, labels: Tensor) -> None:
    if values.ndim != 2 or labels.shape != values.shape or labels.dtype != torch.bool:
        raise UserError(
            f"scores and labels have the shapes {tuple(values.shape)} and {tuple(labels.shape)}, labels of {labels.dtype}; "
            "(N, C) twice and booleans are expected."
        )
