"""Mirrored twins: a map of the finding moves with it, a map of the anatomy does not."""

import numpy as np
import pytest
import torch

from meddiff.evaluation.mirrored_twins import score_twins
from meddiff.evaluation.samples import GroundingSample

SIZE = 48


def twins(number: int) -> list[GroundingSample]:
    """Pairs with a box on the left of the one and on the right of the other."""
    draw = np.random.default_rng(0)
    samples = []
    for pair in range(number):
        x, y = draw.uniform(2, 12), draw.uniform(2, 36)
        for side, left in enumerate((x, SIZE - x - 8)):
            box = np.array([[left, y, 8.0, 10.0]])
            samples.append(GroundingSample(2 * pair + side, f"k{2 * pair + side}", "Edema", "edema", box, (SIZE, SIZE)))
    return samples


def noise(number: int) -> torch.Tensor:
    return torch.rand(number, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_a_map_of_the_finding_moves_and_a_map_of_the_anatomy_does_not() -> None:
    samples = twins(40)
    boxes = torch.stack([torch.from_numpy(one.box_mask()).float() for one in samples])
    seen = score_twins(samples, list(noise(80) + boxes))
    assert (seen.pairs, seen.moved) == (40, 1.0)
    assert seen.own["cnr"] > 2 > 0 > seen.twin["cnr"]
    # Anatomy: both twins have a map that is high on both places. Its CNR is high, and says nothing of the finding.
    both = (boxes + boxes.reshape(40, 2, SIZE, SIZE).flip(1).reshape(80, SIZE, SIZE)).clamp(max=1)
    blind = score_twins(samples, list(noise(80) + both))
    assert blind.own["cnr"] > 1.5
    assert blind.own["cnr"] == pytest.approx(blind.twin["cnr"], abs=0.1)
    assert 0.25 < blind.moved < 0.75
    assert blind.low < 0.5 < blind.high
    # The same map for both twins, whatever it prefers, is chance exactly.
    fixed = score_twins(samples, [noise(1)[0] + boxes[0]] * 80)
    assert fixed.moved == 0.5
