"""One score of attribution maps each, over any number of batches and processes: `metrics.functional` with a memory.

`metrics.GroundingScores` takes the usual four together, by class. Source: spec/tradeoff.md, section 6.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from meddiff.metrics.functional.auroc import pixel_auroc
from meddiff.metrics.functional.boxes import Boxes
from meddiff.metrics.functional.cnr import Exterior, box_contrast_to_noise_ratio, contrast_to_noise_ratio
from meddiff.metrics.functional.distance import centre_distance
from meddiff.metrics.functional.iou import (
    BIOVIL_THRESHOLDS,
    Preset,
    mixture_iou,
    mixture_threshold,
    multi_threshold_iou,
    paper_iou,
)
from meddiff.metrics.functional.top1 import pointing_game
from meddiff.metrics.gathering import ListMetric


class MapMetric(ListMetric):
    """Base: keeps the scores of every sample and averages those that are defined.

    A process may see any number of samples, also none. With NCCL the metric must be on the GPU (``.to(device)``).
    """

    higher_is_better = True
    state_dtype = torch.float64
    #: Columns of a sample, as `compute` names them.
    columns: ClassVar[tuple[str, ...]]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_list("samples")

    def keep(self, *scores: Tensor) -> None:
        """Add the samples of one batch: (N,) for each of ``columns``."""
        self.append("samples", torch.stack(scores, dim=1))

    def compute(self) -> dict[str, float]:
        """Each column's mean over the samples of all processes; ``n`` of them, and ``excluded`` as undefined.

        A sample with one undefined column is left out of all; the mean of none is NaN.
        """
        table = self.joined("samples").reshape(-1, len(self.columns)).cpu()
        kept = table[table.isfinite().all(dim=1)]
        # Sums are exact, so the number of processes, which decides the order, does not matter.
        means = [math.fsum(values) / len(kept) if len(kept) else math.nan for values in kept.T.tolist()]
        counts = {"n": float(len(kept)), "excluded": float(len(table) - len(kept))}
        return {**dict(zip(self.columns, means, strict=True)), **counts}


class ContrastToNoiseRatio(MapMetric):
    """Mean of :func:`metrics.functional.contrast_to_noise_ratio`, whose arguments these are.

    Example:
        >>> import torch
        >>> metric = ContrastToNoiseRatio()
        >>> metric.update(torch.tensor([[[5.0, 3.0, 1.0, 0.0]]]), torch.tensor([[[True, True, False, False]]]))
        >>> round(metric.compute()["cnr"], 4)
        2.2136
    """

    columns = ("cnr",)

    def __init__(self, absolute: bool = False, unbiased: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.absolute, self.unbiased = absolute, unbiased

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Score (N, H, W) float maps on (N, H, W) bool masks."""
        self.keep(contrast_to_noise_ratio(maps, masks, self.absolute, self.unbiased))


class BoxContrastToNoiseRatio(MapMetric):
    """Mean of :func:`metrics.functional.box_contrast_to_noise_ratio`, whose arguments these are.

    Example:
        >>> import torch
        >>> metric = BoxContrastToNoiseRatio()
        >>> metric.update(torch.tensor([[[5.0, 3.0, 1.0, 0.0]]]), [torch.tensor([[0, 0, 2, 1]])])
        >>> round(metric.compute()["cnr_box"], 4)
        2.2136
    """

    columns = ("cnr_box",)

    def __init__(
        self, absolute: bool = False, unbiased: bool = True, exterior: Exterior = "no_box", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.absolute, self.unbiased, self.exterior = absolute, unbiased, exterior

    def update(self, maps: Tensor, boxes: Sequence[Boxes]) -> None:
        """Score (N, H, W) float maps on N arrays (K, 4) of x, y, width, height."""
        self.keep(box_contrast_to_noise_ratio(maps, boxes, self.absolute, self.unbiased, self.exterior))


class PixelAUROC(MapMetric):
    """Mean over maps of :func:`metrics.functional.pixel_auroc`.

    Example:
        >>> import torch
        >>> metric = PixelAUROC()
        >>> metric.update(torch.tensor([[[0.9, 0.4, 0.4, 0.1]]]), torch.tensor([[[True, True, False, False]]]))
        >>> metric.compute()
        {'auroc': 0.875, 'n': 1.0, 'excluded': 0.0}
    """

    columns = ("auroc",)

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Score (N, H, W) float maps on (N, H, W) bool masks."""
        self.keep(pixel_auroc(maps, masks))


class PointingGame(MapMetric):
    """Hit rate of :func:`metrics.functional.pointing_game` (Top-1), whose argument this is.

    Example:
        >>> import torch
        >>> metric = PointingGame(tolerance=1)
        >>> metric.update(torch.tensor([[[0.2, 0.9, 0.1]]]), torch.tensor([[[False, False, True]]]))
        >>> metric.compute()["top1"]
        1.0
    """

    columns = ("top1",)

    def __init__(self, tolerance: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tolerance = tolerance

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Score (N, H, W) float maps on (N, H, W) bool masks."""
        self.keep(pointing_game(maps, masks, self.tolerance))


class MixtureIoU(MapMetric):
    """Means of :func:`metrics.functional.mixture_iou`, or of :func:`metrics.functional.paper_iou`.

    Args:
        preset: "standard", or "paper": the published code's threshold and resize.

    Example:
        >>> import torch
        >>> masks = torch.tensor([[[True, True, False, False]]])
        >>> metric = MixtureIoU()
        >>> metric.update(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), masks)
        >>> {name: round(value, 4) for name, value in metric.compute().items()}
        {'iou': 0.5, 'miou': 0.5833, 'n': 1.0, 'excluded': 0.0}
    """

    columns = ("iou", "miou")

    def __init__(self, preset: Preset = "standard", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        mixture_threshold(torch.zeros(0, 1, 1), preset)  # an unknown preset is told now, not after the first batch
        self.preset = preset

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Score float maps on (N, H, W) bool masks; maps (N, H, W), for "paper" (N, h, w) on the latents' grid."""
        self.keep(*(paper_iou if self.preset == "paper" else mixture_iou)(maps, masks))


class MultiThresholdIoU(MapMetric):
    """Mean of :func:`metrics.functional.multi_threshold_iou` (BioViL's mIoU), whose argument this is.

    Example:
        >>> import torch
        >>> metric = MultiThresholdIoU([0.5])
        >>> metric.update(torch.tensor([[[0.0, 0.6, 1.0]]]), torch.tensor([[[False, False, True]]]))
        >>> metric.compute()["miou_biovil"]
        0.5
    """

    columns = ("miou_biovil",)

    def __init__(self, thresholds: Sequence[float] = BIOVIL_THRESHOLDS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.thresholds = tuple(thresholds)

    def update(self, maps: Tensor, masks: Tensor) -> None:
        """Score (N, H, W) float maps on (N, H, W) bool masks."""
        self.keep(multi_threshold_iou(maps, masks, self.thresholds))


class CentreDistance(MapMetric):
    """Mean of :func:`metrics.functional.centre_distance`, in pixels.

    Example:
        >>> import torch
        >>> metric = CentreDistance()
        >>> metric.update(torch.tensor([[[True, True, False, False]]]), [torch.tensor([[2, 0, 2, 1]])])
        >>> metric.compute()["distance"]
        2.0
    """

    higher_is_better = False
    columns = ("distance",)

    def update(self, pred: Tensor, boxes: Sequence[Boxes]) -> None:
        """Score (N, H, W) bool images on N arrays (K, 4) of x, y, width, height."""
        self.keep(centre_distance(pred, boxes))
