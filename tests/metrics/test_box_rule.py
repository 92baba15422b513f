"""Boxes as pixels: one rule for every place, and thresholds as they are given."""

import numpy as np
import pytest
import torch

from meddiff.evaluation.samples import GroundingSample
from meddiff.metrics.functional import box_masks, box_windows
from meddiff.metrics.functional.iou import foreground


def centres(start: float, stop: float, length: int) -> list[int]:
    """Pixels whose centre lies in [start, stop), by looking at each."""
    return [i for i in range(length) if start <= i + 0.5 < stop]


@pytest.mark.parametrize("x", [0.0, 0.25, 0.5, 1.0, 1.5, 2.5, 3.5, 6.9, 8.5])
@pytest.mark.parametrize("width", [0.2, 0.5, 1.0, 2.0, 3.0, 3.3])
def test_a_pixel_belongs_to_a_box_when_its_centre_lies_inside(x, width):
    box = np.array([[x, 0.0, width, 1.0]])
    columns = np.arange(12)[box_windows(box, (4, 12))[0][1]].tolist()
    inside = centres(x, x + width, 12)
    assert columns == (inside or [int(x + width / 2)])
    sample = GroundingSample(0, "k", "c", "p", box, (4, 12))
    assert np.flatnonzero(sample.box_mask()[0]).tolist() == columns
    assert box_masks(box, (4, 12))[0, 0].nonzero().flatten().tolist() == columns


def test_equal_boxes_have_equal_widths_wherever_they_lie():
    widths = {
        len(range(12)[box_windows(np.array([[x, 0, 3.0, 1]]), (4, 12))[0][1]]) for x in (0.5, 1.5, 2.5, 3.5, 4.0, 4.3)
    }
    assert widths == {3}


@pytest.mark.parametrize(("x", "w", "pixel"), [(3.6, 0.3, 3), (149.74, 0.2, 149), (199.9, 0.05, 199), (-3, 3.2, 0)])
def test_a_box_thinner_than_a_pixel_is_the_pixel_of_its_centre(x, w, pixel):
    assert box_windows(np.array([[x, 0, w, 1.0]]), (4, 200))[0][1] == slice(pixel, pixel + 1)


def test_a_python_number_is_a_threshold_in_float64():
    value = torch.tensor([[[0.3, 0.1, 0.9]]])  # 0.3 in float32 lies above 0.3
    assert value[0, 0, 0].item() > 0.3
    for threshold in (0.3, torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)):
        assert foreground(value, threshold).tolist() == [[[True, False, True]]]
    large = (1e9 + torch.arange(16, dtype=torch.float64)).reshape(1, 4, 4)
    exact = foreground(large, torch.tensor(1e9 + 7.5, dtype=torch.float64))
    assert torch.equal(foreground(large, 1e9 + 7.5), exact)
