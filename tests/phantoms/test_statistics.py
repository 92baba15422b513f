"""Outlines and boxes measured in torchxrayvision's masks, and own norms where they are missing."""

import numpy as np
import pytest

from meddiff.common.errors import UserError
from meddiff.phantoms import openi, statistics
from meddiff.phantoms.anatomy import HEIGHTS, LATERAL, OWN_NORMS, sample_anatomy

needs_masks = pytest.mark.skipif(
    openi.data_file("semantic_masks_v7labs_lungs.zip") is None, reason="torchxrayvision's masks are not installed"
)


def test_missing_statistics_fall_back_on_own_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "data_file", lambda name: None)
    for cached in (statistics._measured_outlines, statistics._measured_boxes):
        cached.cache_clear()
    try:
        assert statistics.outline_norms("auto") is OWN_NORMS
        assert statistics.box_norms("auto") is None
        with pytest.raises(UserError, match="own"):
            statistics.outline_norms("measured")
        with pytest.raises(UserError, match="own"):
            statistics.box_norms("measured")
    finally:
        for cached in (statistics._measured_outlines, statistics._measured_boxes):
            cached.cache_clear()


def test_outline_vector_recovers_a_drawn_outline() -> None:
    rows, columns = np.mgrid[0:200, 0:220]
    height, middle, unit = 150.0, 110.0, 90.0
    v = (rows - 20) / height
    distance = np.abs(columns + 0.5 - middle) / unit
    lateral = np.interp(v, HEIGHTS, LATERAL)
    mask = (v >= 0) & (v <= 1) & (distance < lateral) & (distance > 0.2)
    vector = statistics.outline_vector(mask)
    assert vector is not None
    np.testing.assert_allclose(vector[2:6], LATERAL[2:6], atol=0.04)
    assert vector[14] == pytest.approx(height / unit, abs=0.05)
    assert statistics.outline_vector(np.zeros((50, 50), bool)) is None


@needs_masks
def test_measured_outlines_are_lungs() -> None:
    norms = statistics.outline_norms("measured")
    assert norms.source == "v7"
    rng = np.random.default_rng(0)
    for _ in range(50):
        anatomy = sample_anatomy(rng, "PA", norms)
        for lung in (anatomy.right, anatomy.left):
            assert 0.8 < lung.base < 2.3
            assert all(a < b for a, b in zip(lung.medial, lung.lateral, strict=True))
