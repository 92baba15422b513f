"""Metrics as pure functions of tensors: no state, no files, no Trainer."""

from meddiff.metrics.functional.auroc import pixel_auroc
from meddiff.metrics.functional.boxes import Boxes, box_masks, box_windows
from meddiff.metrics.functional.cnr import Regions, box_contrast_to_noise_ratio, contrast_to_noise_ratio, region_moments
from meddiff.metrics.functional.disentanglement import single_areas, tad
from meddiff.metrics.functional.distance import centre_distance
from meddiff.metrics.functional.frechet import FeatureStatistics, feature_statistics, frechet_distance
from meddiff.metrics.functional.gain import PairedScores, grounding_gain
from meddiff.metrics.functional.iou import (
    both_ious,
    foreground,
    mean_iou,
    mixture_iou,
    mixture_threshold,
    multi_threshold_iou,
    paper_iou,
)
from meddiff.metrics.functional.kid import kernel_distance
from meddiff.metrics.functional.latent_probe import latent_accuracy, latent_auroc
from meddiff.metrics.functional.reconstruction_error import reconstruction
from meddiff.metrics.functional.resize import min_max, resize_maps, resize_masks
from meddiff.metrics.functional.sample_scores import SAMPLE_COLUMNS, score_grid_maps
from meddiff.metrics.functional.top1 import pointing_game
from meddiff.metrics.functional.usage import prototype_likeness, prototype_use

__all__ = [
    "SAMPLE_COLUMNS",
    "Boxes",
    "FeatureStatistics",
    "PairedScores",
    "Regions",
    "both_ious",
    "box_contrast_to_noise_ratio",
    "box_masks",
    "box_windows",
    "centre_distance",
    "contrast_to_noise_ratio",
    "feature_statistics",
    "foreground",
    "frechet_distance",
    "grounding_gain",
    "kernel_distance",
    "latent_accuracy",
    "latent_auroc",
    "mean_iou",
    "min_max",
    "mixture_iou",
    "mixture_threshold",
    "multi_threshold_iou",
    "paper_iou",
    "pixel_auroc",
    "pointing_game",
    "prototype_likeness",
    "prototype_use",
    "reconstruction",
    "region_moments",
    "resize_maps",
    "resize_masks",
    "score_grid_maps",
    "single_areas",
    "tad",
]
