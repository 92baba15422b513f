"""Measures of grounding and of fidelity: torchmetrics classes over the functions of `metrics.functional`.

Names are imported when they are asked for: torchmetrics takes longer to import than torch, and who needs the functions or
`summarise` alone should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.classifier import ClassifierAUROC
    from metrics.diversity import PairwiseSimilarity
    from metrics.fidelity import FrechetFeatureDistance
    from metrics.functional.sample_scores import score_grid_maps
    from metrics.grounding import GroundingScores, score_maps
    from metrics.maps import (
        BoxContrastToNoiseRatio,
        CentreDistance,
        ContrastToNoiseRatio,
        MixtureIoU,
        MultiThresholdIoU,
        PixelAUROC,
        PointingGame,
    )
    from metrics.summary import summarise

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
    "BoxContrastToNoiseRatio": "metrics.maps",
    "CentreDistance": "metrics.maps",
    "ClassifierAUROC": "metrics.classifier",
    "ContrastToNoiseRatio": "metrics.maps",
    "FrechetFeatureDistance": "metrics.fidelity",
    "GroundingScores": "metrics.grounding",
    "MixtureIoU": "metrics.maps",
    "MultiThresholdIoU": "metrics.maps",
    "PairwiseSimilarity": "metrics.diversity",
    "PixelAUROC": "metrics.maps",
    "PointingGame": "metrics.maps",
    "score_grid_maps": "metrics.functional.sample_scores",
    "score_maps": "metrics.grounding",
    "summarise": "metrics.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
