"""Do the words point at the right place? Scores of attribution maps against masks, sample by sample and averaged.

Source: Dombrowski et al. (AAAI 2024), Tables 1 and 3; spec/tradeoff.md, section 6.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import contrast_to_noise_ratio, mean_iou, pixel_auroc, pointing_game
from meddiff.metrics.functional.checks import mask_rows
from meddiff.metrics.functional.sample_scores import score_grid_maps
from meddiff.metrics.gathering import ListMetric
from meddiff.metrics.summary import SCORES, Score, summarise

__all__ = ["GroundingScores", "locate_maps", "score_grid_maps", "score_maps", "summarise"]

#: Pixels scored at once: a float64 copy of them takes 8 MiB, and some twenty are alive at the peak.
PIXELS = 2**20


def locate_maps(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """The three scores that need no threshold: cnr, auroc, top1, (N,) float64 each; arguments as :func:`score_maps`."""
    return {
        "cnr": contrast_to_noise_ratio(maps, masks),
        "auroc": pixel_auroc(maps, masks),
        "top1": pointing_game(maps, masks),
    }


def score_maps(maps: Tensor, masks: Tensor, threshold: Tensor | None = None) -> dict[str, Tensor]:
    """The four scores of every sample.

    Args:
        maps: (N, H, W) float.
        masks: (N, H, W) bool.
        threshold: (N,) of the foreground for miou, such as that of the maps before they were brought to the image (the
            paper fits it there); None: `mixture_threshold` of ``maps``.

    Returns:
        cnr, auroc, top1, miou: (N,) float64 each, NaN where undefined (see the functions of `meddiff.metrics.functional`).

    Raises:
        UserError: shapes differ, or masks are not boolean.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 8, 8, dtype=torch.bool)
        >>> masks[:, 2:5, 2:5] = True
        >>> maps = masks + torch.linspace(0, 0.5, 64).reshape(1, 8, 8)
        >>> {name: round(value.item(), 2) for name, value in score_maps(maps, masks).items()}
        {'cnr': 5.74, 'auroc': 1.0, 'top1': 1.0, 'miou': 0.74}
    """
    mask_rows(masks, maps)
    if threshold is not None and threshold.shape != maps.shape[:1]:
        raise UserError(
            f"threshold has the shape {tuple(threshold.shape)}; one for each of {len(maps)} maps is expected."
        )
    chunk = max(1, PIXELS // maps.shape[1:].numel())
    parts = []
    for start in range(0, max(1, len(maps)), chunk):
        some = slice(start, start + chunk)
        cut = None if threshold is None else threshold[some]
        parts.append((*locate_maps(maps[some], masks[some]).values(), mean_iou(maps[some], masks[some], cut)))
    return {name: torch.cat(values) for name, values in zip(SCORES, zip(*parts, strict=True), strict=True)}


class GroundingScores(ListMetric):
    """CNR, pixel AUROC, Top-1 and mean IoU over any number of batches and processes.

    A process may see any number of samples, also none. Samples that a distributed sampler repeats to fill the last
    batch count twice: shard without padding. With NCCL the metric must be on the GPU (``.to(device)``).

    Args:
        classes: names that `update` accepts.
        sync_on_compute: see :class:`ListMetric`.

    Raises:
        UserError: no classes, or one twice.

    Example:
        >>> import torch
        >>> masks = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> masks[0, 2:5, 2:5] = masks[1, 4:, 4:] = True
        >>> maps = masks + torch.linspace(0, 0.5, 64).reshape(1, 8, 8)
        >>> metric = GroundingScores(["edema", "pneumonia"])
        >>> metric.update(maps, masks, ["edema", "pneumonia"])
        >>> scores = metric.compute()
        >>> scores["auroc"], scores["pneumonia/n"], scores["excluded"]
        (1.0, 1.0, 0.0)
    """

    higher_is_better = True
    state_dtype = torch.float64

    def __init__(self, classes: Sequence[str], sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute)
        if not classes or len(set(classes)) != len(classes):
            raise UserError(f"classes are {list(classes)}; a list of different names is needed.")
        self.classes = list(classes)
        self.add_list("samples")

    def update(self, maps: Tensor, masks: Tensor, classes: Sequence[str], threshold: Tensor | None = None) -> None:
        """Score one batch.

        Args:
            maps: (N, H, W) float.
            masks: (N, H, W) bool.
            classes: N names.
            threshold: (N,), as in :func:`score_maps`.

        Raises:
            UserError: shapes differ, masks are not boolean, a name that was not announced, or not N names.
        """
        unknown = sorted(set(classes) - set(self.classes))
        if unknown:
            raise UserError(f"{unknown} are not among the classes {self.classes} of this metric.")
        if len(classes) != len(maps):
            raise UserError(f"{len(classes)} class names for {len(maps)} maps: one for each is needed.")
        scores = score_maps(maps, masks, threshold)
        index = scores["cnr"].new_tensor([self.classes.index(name) for name in classes])
        self.append("samples", torch.stack([index, *(scores[name] for name in SCORES)], dim=1))

    def rows(self) -> list[dict[str, Score]]:
        """The samples of this process (of all, inside `compute`): class, cnr, auroc, top1, miou."""
        table = self.joined("samples").reshape(-1, 1 + len(SCORES)).tolist()
        return [{"class": self.classes[int(row[0])], **dict(zip(SCORES, row[1:], strict=True))} for row in table]

    def compute(self) -> dict[str, float]:
        """Averages over all processes; the keys are those of `summarise`."""
        return summarise(self.rows())
