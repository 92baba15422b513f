"""Area under the ROC curve of a classifier, class by class. Source: Dombrowski et al. (AAAI 2024), Table 5; the sets of
images by spec/tradeoff.md, section 7."""

from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import NAN, as_double


def exact_label_sets(labels: Sequence[Sequence[str]], classes: Sequence[str], healthy: str) -> tuple[Tensor, Tensor]:
    """Which images count as positive and as negative for each class: labelled exactly so, or exactly healthy.

    Images with several labels count for no class.

    Returns:
        positive (N, C) and negative (N, C), bool.

    Example:
        >>> positive, negative = exact_label_sets([["a"], ["a", "b"], ["ok"]], ["a", "b"], "ok")
        >>> positive.tolist(), negative.tolist()
        ([[True, False], [False, False], [False, False]], [[False, False], [False, False], [True, True]])
    """
    shape = (len(labels), len(classes))
    positive = torch.tensor([[list(names) == [one] for one in classes] for names in labels], dtype=torch.bool)
    negative = torch.tensor([[list(names) == [healthy]] * len(classes) for names in labels], dtype=torch.bool)
    return positive.reshape(shape), negative.reshape(shape)


def class_auroc(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Probability that a positive image of a class scores higher than a negative one, a tie counting one half.

    Args:
        scores: (N, C) float; column c is the classifier's output for class c.
        positive: (N, C) bool.
        negative: (N, C) bool; an image in neither set is left out.

    Returns:
        (C,) float64; NaN where a class has no positive or no negative image, or one of their scores is not finite.

    Raises:
        UserError: shapes differ, sets are not boolean, or an image is in both.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.9], [0.4], [0.4], [0.1], [5.0]])
        >>> positive = torch.tensor([[True], [True], [False], [False], [False]])
        >>> negative = torch.tensor([[False], [False], [True], [True], [False]])
        >>> class_auroc(scores, positive, negative).tolist()
        [0.875]
    """
    if scores.ndim != 2 or positive.shape != scores.shape or negative.shape != scores.shape:
        shapes = ", ".join(str(tuple(one.shape)) for one in (scores, positive, negative))
        raise UserError(f"scores, positive and negative have the shapes {shapes}; (N, C) three times is expected.")
    if positive.dtype != torch.bool or negative.dtype != torch.bool:
        raise UserError(f"positive is {positive.dtype} and negative {negative.dtype}; boolean tensors are expected.")
    if bool((positive & negative).any()):
        raise UserError("an image is positive and negative for one class; each can be in one set only.")
    values = as_double(scores)
    positive, negative = positive.to(values.device), negative.to(values.device)
    found = [_auroc(values[:, c][positive[:, c]], values[:, c][negative[:, c]]) for c in range(values.shape[1])]
    return torch.tensor(found, dtype=torch.float64)


def macro_auroc_by_image(scores: Tensor, positive: Tensor, classes: Sequence[int]) -> Tensor:
    """What every image adds to the mean over classes of AUROC: the mean of these numbers is that mean.

    Each is the area plus the image's influence on it (the placement of its score among those of the other side, less the area,
    by the share of its side), so that the variance of their mean is that of the area (DeLong et al. 1988) also where one
    image is positive for one class and negative for another. Two classifiers scored on the same images are compared image by
    image. Source: as named; several classes own.

    Args:
        scores: (N, C) float.
        positive: (N, C) bool; all other images are the negatives.
        classes: columns that count.

    Returns:
        (N,) float64; NaN where a class has no positive or no negative image or a score is not finite.

    Raises:
        UserError: as :func:`class_auroc`.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.9], [0.4], [0.4], [0.1]])
        >>> positive = torch.tensor([[True], [True], [False], [False]])
        >>> found = macro_auroc_by_image(scores, positive, [0])
        >>> found.tolist(), found.mean().item()
        ([1.125, 0.625, 0.625, 1.125], 0.875)
    """
    areas = class_auroc(scores, positive, ~positive)  # (C,)
    values = as_double(scores)
    yes = positive.to(values.device)
    total = torch.zeros(len(values), dtype=torch.float64)
    for c in classes:
        mine, others = yes[:, c], ~yes[:, c]
        high, low = values[mine, c], values[others, c]
        row = torch.full((len(values),), NAN, dtype=torch.float64)
        if bool(areas[c].isfinite()):
            row[mine.cpu()] = (_share_below(high, low).cpu() - areas[c]) * (len(values) / len(high))
            row[others.cpu()] = (_share_below(-low, -high).cpu() - areas[c]) * (len(values) / len(low))
        total += row + areas[c]
    return total / len(classes) if len(classes) else torch.full_like(total, NAN)


def _auroc(high: Tensor, low: Tensor) -> float:
    """Mann-Whitney: of every positive (P,), how many negatives (M,) lie below it, ties as halves."""
    if not len(high) or not len(low) or not bool(high.isfinite().all() and low.isfinite().all()):
        return NAN
    return float(_counts_below(high, low).sum()) / (2.0 * len(high) * len(low))


def _counts_below(values: Tensor, others: Tensor) -> Tensor:
    """(P,): twice how many of ``others`` lie below each value, a tie counting once."""
    ordered = others.sort().values
    below, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return below + up_to


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """(P,) float64: which share of ``others`` lies below each value, a tie counting one half."""
    return _counts_below(values, others).double() / (2.0 * len(others))
