"""What the room offers exists."""

import pytest
from torchmetrics import Metric

from meddiff import metrics


def test_every_name_of_the_room_can_be_asked_for() -> None:
    found = {name: getattr(metrics, name) for name in metrics.__all__}
    assert all(callable(one) for one in found.values())
    classes = {name for name, one in found.items() if isinstance(one, type) and issubclass(one, Metric)}
    assert classes == {
        *("ClassifierAUROC", "FrechetFeatureDistance", "GroundingGain", "GroundingScores", "PairwiseSimilarity"),
        *("LatentQuality", "ReconstructionError"),
    }
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        metrics.__getattr__("nothing_of_the_kind")
