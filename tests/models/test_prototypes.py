"""Distances, similarities and the encoder of prototypes."""

import numpy as np
import pytest
import torch
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.models.prototypes import (
    EPS,
    PrototypeEncoder,
    distinctness_loss,
    log_activation,
    squared_distances,
)
from tests.builders.patronus import STACK
from tests.builders.readings import SHARED

PUBLISHED_224 = [(5, 2, 1, 32), (5, 2, 1, 64), (5, 1, 0, 64), (5, 1, 0, 128), (5, 1, 0, 128)]
XRAYS = SHARED / "nih_frontal_256"


def brute_force(features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    z, p = features.double(), prototypes.double()
    return (z[:, None] - p[None, :, :, None, None]).square().sum(2)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_distances_are_those_of_brute_force(scale: float) -> None:
    torch.manual_seed(0)
    z, p = torch.rand(3, 16, 5, 7) * scale, torch.rand(4, 16) * scale
    torch.testing.assert_close(squared_distances(z, p).double(), brute_force(z, p), rtol=1e-5, atol=1e-6 * scale**2)


def test_an_activation_near_zero_distance_is_right() -> None:
    """The identity in float32, the cheapest way, is wrong by a hundred times as much where features are large."""
    torch.manual_seed(0)
    p = torch.rand(8, 128) * 5
    z = (p + 1e-4 * torch.randn(8, 128)).T[None, :, None, :]  # (1, D, 1, 8): each patch beside its prototype
    exact = log_activation(brute_force(z, p))[0, :, 0].diagonal()
    ours = log_activation(squared_distances(z, p))[0, :, 0].diagonal()
    naive = z[0, :, 0].square().sum(0) - 2 * p @ z[0, :, 0] + p.square().sum(1)[:, None]
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-4)
    assert (log_activation(naive.clamp(min=0).diagonal()).double() - exact).abs().max() > 0.02


def test_an_activation_is_that_of_the_nearest_patch_with_its_gradient() -> None:
    torch.manual_seed(0)
    encoder = PrototypeEncoder(STACK, 4, prototypes=6, dimension=16)
    x = torch.randn(3, 4, 8, 8)
    s = encoder(x)
    by_map = encoder.maps(x).amax(dim=(2, 3))
    torch.testing.assert_close(s, by_map, rtol=1e-4, atol=1e-5)
    ways = [torch.autograd.grad(one.square().sum(), list(encoder.parameters())) for one in (s, by_map)]
    for ours, slow in zip(*ways, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-3, atol=1e-5)
    at = encoder.nearest(x)
    for row in range(3):
        for j in range(6):
            assert encoder.distances(x)[row, j, at[row, j, 0], at[row, j, 1]] == encoder.distances(x)[row, j].min()


def test_activations_fall_with_distance_and_stay_in_their_range() -> None:
    d2 = torch.cat([torch.zeros(1), torch.logspace(-12, 12, 400)])
    s = log_activation(d2)
    assert (s > 0).all()
    assert (s < 9.22).all()
    assert (s.diff() <= 0).all()
    torch.testing.assert_close(s.double(), ((d2.double() + 1) / (d2.double() + EPS)).log(), rtol=1e-5, atol=1e-15)
    torch.testing.assert_close(
        log_activation(torch.tensor([0.05, 0.5, 1.0, 1.5, 2.0, 10.0])),
        torch.tensor([3.04, 1.10, 0.69, 0.51, 0.41, 0.095]),
        rtol=0,
        atol=6e-3,
    )


def test_distinct_prototypes_cost_nothing_and_copies_all_of_it() -> None:
    assert float(distinctness_loss(torch.eye(5), 0.2)) == 0.0
    same = torch.ones(4, 3)
    assert float(distinctness_loss(same, 0.2)) == pytest.approx(0.2)
    turned = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert float(distinctness_loss(turned, 0.5)) == pytest.approx(0.5)
    assert float(distinctness_loss(torch.ones(1, 3), 0.5)) == 0.0


def test_half_precision_outside_does_not_reach_the_distances() -> None:
    torch.manual_seed(0)
    encoder = PrototypeEncoder(STACK, 4, prototypes=6, dimension=16)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = encoder(x)
    assert torch.equal(inside, encoder(x))


@pytest.mark.parametrize(
    ("layers", "dimension", "told"),
    [
        ([], 8, "empty"),
        ([[3, 1, 0, 8]], 16, "channels"),
        ([[3, 0, 0, 8]], 8, "whole numbers"),
        ([[3, 1, 3, 8]], 8, "padding"),
        ([[3, 1, 8]], 8, "whole numbers"),
    ],
)
def test_a_stack_that_cannot_be_is_refused(layers: list[list[int]], dimension: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        PrototypeEncoder(layers, 4, 6, dimension)


def test_an_image_smaller_than_the_stack_is_refused() -> None:
    with pytest.raises(UserError, match="do not fit into an input of 8 x 8"):
        PrototypeEncoder(PUBLISHED_224, 1)(torch.zeros(1, 1, 8, 8))


def real_xrays(number: int) -> torch.Tensor:
    if not XRAYS.is_dir():
        pytest.skip("the real X-rays (shared/data/nih_frontal_256) are not here")
    files = sorted((XRAYS / "images").iterdir())[:number]
    pictures = [np.array(Image.open(file).convert("L").resize((224, 224), Image.Resampling.BICUBIC)) for file in files]
    return torch.from_numpy(np.stack(pictures)).float()[:, None] / 127.5 - 1.0


@pytest.mark.parametrize(
    ("init", "normalise", "least", "most"), [("kaiming", True, 5e-3, 1.0), ("normal_0.1", False, 1e-6, 2e-4)]
)
def test_activations_at_first_tell_real_xrays_apart(init: str, normalise: bool, least: float, most: float) -> None:
    """Of the suite's preset; the published one starts dead (3.8e-5 here), which is its defect and not ours to hide."""
    torch.manual_seed(0)
    encoder = PrototypeEncoder(PUBLISHED_224, 1, 100, 128, init, normalise)
    with torch.no_grad():
        spread = float(encoder(real_xrays(8)).std(dim=0).mean())
    assert least < spread < most
