"""What the room offers exists, and the examples in its docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest
from torchmetrics import Metric

from meddiff import metrics

MODULES = sorted(module.name for module in pkgutil.walk_packages(metrics.__path__, f"{metrics.__name__}."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_name_of_the_room_can_be_asked_for() -> None:
    found = {name: getattr(metrics, name) for name in metrics.__all__}
    assert all(callable(one) for one in found.values())
    classes = {name for name, one in found.items() if isinstance(one, type) and issubclass(one, Metric)}
    assert classes == {"ClassifierAUROC", "FrechetFeatureDistance", "GroundingScores", "PairwiseSimilarity"}
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        metrics.__getattr__("nothing_of_the_kind")
