"""Measures of grounding and of fidelity: torchmetrics classes over the functions of `metrics.functional`.

Names are imported when they are asked for: torchmetrics takes longer to import than torch, and who needs the functions or
`summarise` alone should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.fidelity import FrechetFeatureDistance
    from metrics.grounding import GroundingScores, score_maps
    from metrics.summary import summarise

__all__ = ["FrechetFeatureDistance", "GroundingScores", "score_maps", "summarise"]

_HOMES = {
    "FrechetFeatureDistance": "metrics.fidelity",
    "GroundingScores": "metrics.grounding",
    "score_maps": "metrics.grounding",
    "summarise": "metrics.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
