"""Measures of grounding and of fidelity: torchmetrics classes over the functions of `metrics.functional`.

Names are imported when they are asked for: torchmetrics takes longer to import than torch, and who needs the functions or
`summarise` alone should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meddiff.metrics.classifier import ClassifierAUROC
    from meddiff.metrics.diversity import PairwiseSimilarity
    from meddiff.metrics.fidelity import FrechetFeatureDistance
    from meddiff.metrics.functional.sample_scores import score_grid_maps
    from meddiff.metrics.grounding import GroundingScores, score_maps
    from meddiff.metrics.maps import (
        BoxContrastToNoiseRatio,
        CentreDistance,
        ContrastToNoiseRatio,
        MixtureIoU,
        MultiThresholdIoU,
        PixelAUROC,
        PointingGame,
    )
    from meddiff.metrics.summary import summarise

__all__ = [
    "BoxContrastToNoiseRatio",
    "CentreDistance",
    "ClassifierAUROC",
    "ContrastToNoiseRatio",
    "FrechetFeatureDistance",
    "GroundingScores",
    "MixtureIoU",
    "MultiThresholdIoU",
    "PairwiseSimilarity",
    "PixelAUROC",
    "PointingGame",
    "score_grid_maps",
    "score_maps",
    "summarise",
]

_HOMES = {
    "BoxContrastToNoiseRatio": "meddiff.metrics.maps",
    "CentreDistance": "meddiff.metrics.maps",
    "ClassifierAUROC": "meddiff.metrics.classifier",
    "ContrastToNoiseRatio": "meddiff.metrics.maps",
    "FrechetFeatureDistance": "meddiff.metrics.fidelity",
    "GroundingScores": "meddiff.metrics.grounding",
    "MixtureIoU": "meddiff.metrics.maps",
    "MultiThresholdIoU": "meddiff.metrics.maps",
    "PairwiseSimilarity": "meddiff.metrics.diversity",
    "PixelAUROC": "meddiff.metrics.maps",
    "PointingGame": "meddiff.metrics.maps",
    "score_grid_maps": "meddiff.metrics.functional.sample_scores",
    "score_maps": "meddiff.metrics.grounding",
    "summarise": "meddiff.metrics.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
