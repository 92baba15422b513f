"""Metrics as pure functions of tensors: no state, no files, no Trainer."""

from metrics.functional.auroc import pixel_auroc
from metrics.functional.cnr import contrast_to_noise_ratio
from metrics.functional.frechet import FeatureStatistics, feature_statistics, frechet_distance, merge
from metrics.functional.iou import binary_iou, mean_iou, mixture_threshold
from metrics.functional.kid import kernel_distance
from metrics.functional.top1 import pointing_game

__all__ = [
    "FeatureStatistics",
    "binary_iou",
    "contrast_to_noise_ratio",
    "feature_statistics",
    "frechet_distance",
    "kernel_distance",
    "mean_iou",
    "merge",
    "mixture_threshold",
    "pixel_auroc",
    "pointing_game",
]
