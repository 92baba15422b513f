"""The examples in the docstrings of the room are true."""

import doctest
import importlib
import pkgutil

import pytest

from meddiff import metrics

MODULES = sorted(module.name for module in pkgutil.walk_packages(metrics.__path__, "metrics."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
