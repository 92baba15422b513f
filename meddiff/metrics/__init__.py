"""Measures of grounding, of fidelity and of latents: torchmetrics classes over the functions of `meddiff.metrics.functional`.

Names are imported when they are asked for: torchmetrics takes longer to import than torch, and who needs the functions or
`summarise` alone should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meddiff.metrics.classifier import ClassifierAUROC
    from meddiff.metrics.diversity import PairwiseSimilarity
    from meddiff.metrics.fidelity import FrechetFeatureDistance
    from meddiff.metrics.functional.gain import grounding_gain
    from meddiff.metrics.functional.sample_scores import score_grid_maps
    from meddiff.metrics.gain import GroundingGain
    from meddiff.metrics.grounding import GroundingScores, score_maps
    from meddiff.metrics.latent_quality import LatentQuality, ReconstructionError
    from meddiff.metrics.summary import summarise

__all__ = [
    "ClassifierAUROC",
    "FrechetFeatureDistance",
    "GroundingGain",
    "GroundingScores",
    "LatentQuality",
    "PairwiseSimilarity",
    "ReconstructionError",
    "grounding_gain",
    "score_grid_maps",
    "score_maps",
    "summarise",
]

_HOMES = {
    "ClassifierAUROC": "meddiff.metrics.classifier",
    "FrechetFeatureDistance": "meddiff.metrics.fidelity",
    "GroundingGain": "meddiff.metrics.gain",
    "GroundingScores": "meddiff.metrics.grounding",
    "LatentQuality": "meddiff.metrics.latent_quality",
    "PairwiseSimilarity": "meddiff.metrics.diversity",
    "ReconstructionError": "meddiff.metrics.latent_quality",
    "grounding_gain": "meddiff.metrics.functional.gain",
    "score_grid_maps": "meddiff.metrics.functional.sample_scores",
    "score_maps": "meddiff.metrics.grounding",
    "summarise": "meddiff.metrics.summary",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'meddiff.metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
