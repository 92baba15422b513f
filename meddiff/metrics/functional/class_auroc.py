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


def _auroc(high: Tensor, low: Tensor) -> float:
    """Mann-Whitney: of every positive (P,), how many negatives (M,) lie below it, ties as halves."""
    if not len(high) or not len(low) or not bool(high.isfinite().all() and low.isfinite().all()):
        return NAN
    ordered = low.sort().values
    below, up_to = (torch.searchsorted(ordered, high, right=right) for right in (False, True))
    return float((below + up_to).sum()) / (2.0 * len(high) * len(low))
