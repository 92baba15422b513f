"""Is a map silent when its finding is absent? Scores of maps of present and of absent findings.

Maps are taken raw: a map that is brought to 0..1 first has its peak at 1 whether or not anything is there. Source: own.
"""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional.checks import as_double


def map_scores(maps: Tensor, share: float = 0.01) -> dict[str, Tensor]:
    """What a whole map says about presence: ``max``, its highest value, and ``top``, the mean of its highest pixels.

    Args:
        maps: (N, H, W) float, raw.
        share: of the pixels, at least one.

    Returns:
        name -> (N,) float64.

    Example:
        >>> import torch
        >>> {name: value.tolist() for name, value in map_scores(torch.tensor([[[1.0, 3.0], [2.0, 0.0]]]), 0.5).items()}
        {'max': [3.0], 'top': [2.5]}
    """
    rows = as_double(maps).flatten(1)  # (N, P)
    count = max(1, round(share * rows.shape[1]))
    return {"max": rows.amax(dim=1), "top": rows.topk(count, dim=1).values.mean(dim=1)}


def presence_auroc(present: Sequence[float], absent: Sequence[float]) -> float:
    """Chance that a present finding's map scores higher than an absent one's, a tie counting one half; NaN if a side is empty.

    Values that are not finite are left out.

    Example:
        >>> round(presence_auroc([3.0, 1.0, 0.5], [0.8, 0.2]), 6)
        0.833333
    """
    from scipy.stats import rankdata

    yes, no = (np.array([value for value in some if math.isfinite(value)]) for some in (present, absent))
    if not len(yes) or not len(no):
        return math.nan
    ranks = rankdata(np.concatenate([yes, no]))
    return (float(ranks[: len(yes)].sum()) - len(yes) * (len(yes) + 1) / 2) / (len(yes) * len(no))


def absent_auroc(scores: Sequence[float], present: Sequence[bool], classes: Sequence[str]) -> dict[str, float]:
    """:func:`presence_auroc` of each class over its images, and under ``""`` the mean over the classes that have one.

    Args:
        scores: of one asking (image, class) each.
        present: whether the image has the finding.
        classes: which was asked for.

    Example:
        >>> found = absent_auroc([3.0, 1.0, 0.5, 0.8, 0.2], [True, True, True, False, False], ["a"] * 5)
        >>> round(found["a"], 6), round(found[""], 6)
        (0.833333, 0.833333)
    """
    found = {}
    for name in sorted(set(classes)):
        sides = [
            [s for s, p, c in zip(scores, present, classes, strict=True) if c == name and p == want]
            for want in (True, False)
        ]
        found[name] = presence_auroc(*sides)
    known = [value for value in found.values() if math.isfinite(value)]
    return {**found, "": math.fsum(known) / len(known) if known else math.nan}


def false_focus(
    absent: Sequence[float], present: Sequence[float], absent_classes: Sequence[str], present_classes: Sequence[str]
) -> float:
    """CNR of absent findings in their class's usual place less that of present ones there, mean over classes.

    0: the map looks where the finding usually is, whether or not it is there; the further below 0, the better.

    Args:
        absent, present: CNR in the mean box of the class, one an asking.

    Returns:
        NaN where no class has both.

    Example:
        >>> false_focus([1.0, 2.0], [4.0], ["a", "a"], ["a"])
        -2.5
    """
    parts = []
    for name in sorted(set(present_classes)):
        sides = [
            [value for value, one in zip(values, names, strict=True) if one == name and math.isfinite(value)]
            for values, names in ((absent, absent_classes), (present, present_classes))
        ]
        if all(sides):
            parts.append(math.fsum(sides[0]) / len(sides[0]) - math.fsum(sides[1]) / len(sides[1]))
    return math.fsum(parts) / len(parts) if parts else math.nan


def no_target_accuracy(validation: Sequence[float], absent: Sequence[float], kept: float = 0.95) -> float:
    """Share of absent findings below the threshold that keeps this share of present ones of other images.

    Args:
        validation: scores of present findings of images that are not asked here.
        absent: scores of absent findings.

    Returns:
        1 - ``kept`` at chance; NaN if a side is empty.

    Raises:
        UserError: a share outside (0, 1).

    Example:
        >>> no_target_accuracy([1.0, 2.0, 3.0, 4.0], [0.5, 0.9, 2.5, 5.0], kept=0.75)
        0.5
    """
    if not 0 < kept < 1:
        raise UserError(f"a share of {kept:g} of present findings cannot be kept: give one between 0 and 1.")
    yes, no = (np.array([value for value in some if math.isfinite(value)]) for some in (validation, absent))
    if not len(yes) or not len(no):
        return math.nan
    threshold = np.quantile(yes, 1 - kept, method="lower")  # a score that occurs: no fewer than asked for are kept
    return float((no < threshold).mean())
