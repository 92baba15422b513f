"""Does a classifier recognise in an image what its prompt asked for? Source: Dombrowski et al. (AAAI 2024), Table 5."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double
from meddiff.metrics.functional.class_auroc import class_auroc, exact_label_sets
from meddiff.metrics.gathering import ListMetric


class ClassifierAUROC(ListMetric):
    """AUROC of a classifier's output d between images labelled exactly [d] and exactly healthy ones.

    Over any number of batches and processes. Images with several labels are counted and left out, as in the paper.

    Args:
        classes: names of the outputs, in their order.
        healthy: the label of the negatives.
        sync_on_compute: see :class:`ListMetric`.

    Raises:
        UserError: no classes, or one twice.

    Example:
        >>> import torch
        >>> metric = ClassifierAUROC(["edema", "pneumonia"], "healthy")
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.2, 0.3]]), [["edema"], ["healthy"]])
        >>> metric.compute()
        {'edema': 1.0, 'edema/n': 1.0, 'pneumonia': nan, 'pneumonia/n': 0.0, 'macro': 1.0, 'healthy/n': 1.0, 'left_out': 0.0}
    """

    higher_is_better = True
    state_dtype = torch.float64

    def __init__(self, classes: Sequence[str], healthy: str, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute)
        if not classes or len({*classes, healthy}) != len(classes) + 1:
            raise UserError(f"classes are {list(classes)} beside {healthy!r}; a list of different names is needed.")
        self.classes, self.healthy = list(classes), healthy
        self.add_list("rows")

    def update(self, scores: Tensor, labels: Sequence[Sequence[str]]) -> None:
        """Add one batch.

        Args:
            scores: (N, C) float, probabilities or logits.
            labels: N lists of names.

        Raises:
            UserError: not (N, C), or not N lists.
        """
        if scores.shape != (len(labels), len(self.classes)):
            raise UserError(
                f"scores have the shape {tuple(scores.shape)}; "
                f"{(len(labels), len(self.classes))} is expected: one row an image, one column a class."
            )
        positive, negative = exact_label_sets(labels, self.classes, self.healthy)
        values = as_double(scores)
        sets = torch.cat([positive, negative], dim=1).to(values)
        self.append("rows", torch.cat([values, sets], dim=1))

    def compute(self) -> dict[str, float]:
        """For each class its AUROC (NaN without positives or negatives) and ``CLASS/n``; ``macro``, the mean of those
        that have one; the number of healthy images; ``left_out``, images that are neither."""
        count = len(self.classes)
        rows = self.joined("rows").reshape(-1, 3 * count)
        scores, positive, negative = rows[:, :count], rows[:, count : 2 * count] > 0, rows[:, 2 * count :] > 0
        values = class_auroc(scores, positive, negative).tolist()
        result: dict[str, float] = {}
        for name, value, n in zip(self.classes, values, positive.sum(dim=0).tolist(), strict=True):
            result |= {name: value, f"{name}/n": float(n)}
        known = [value for value in values if math.isfinite(value)]
        used = (positive | negative).any(dim=1)
        return {
            **result,
            "macro": math.fsum(known) / len(known) if known else math.nan,
            f"{self.healthy}/n": float(negative[:, 0].sum()),
            "left_out": float((~used).sum()),
        }
