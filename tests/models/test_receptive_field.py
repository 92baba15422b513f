"""The arithmetic of receptive fields against where gradients go."""

import numpy as np
import pytest
import torch

from meddiff.models.prototypes import PrototypeEncoder
from meddiff.models.receptive_field import box_of, output_size, receptive_field

PUBLISHED_64 = [(3, 2, 1, 32), (3, 1, 0, 64), (3, 1, 0, 64), (3, 1, 0, 128)]
PUBLISHED_224 = [(5, 2, 1, 32), (5, 2, 1, 64), (5, 1, 0, 64), (5, 1, 0, 128), (5, 1, 0, 128)]


def random_stack(seed: int) -> list[tuple[int, int, int, int]]:
    draws = np.random.default_rng(seed)
    stack = []
    for _ in range(draws.integers(1, 5)):
        kernel = int(draws.integers(1, 6))
        stack.append((kernel, int(draws.integers(1, 4)), int(draws.integers(0, kernel)), 2))
    return stack


def footprint(stack: list[tuple[int, int, int, int]], size: tuple[int, int], place: tuple[int, int]) -> list[int]:
    """Rows and columns of the input that change the cell, by gradient: y0, x0, y1, x1."""
    weights = [torch.ones(1, 1, kernel, kernel) for kernel, *_ in stack]
    x = torch.zeros(1, 1, *size, requires_grad=True)
    z = x
    for weight, (_, stride, padding, _) in zip(weights, stack, strict=True):
        z = torch.nn.functional.conv2d(z, weight, stride=stride, padding=padding)
    (slope,) = torch.autograd.grad(z[0, 0, place[0], place[1]], x)
    rows, columns = slope[0, 0].sum(1).nonzero()[:, 0], slope[0, 0].sum(0).nonzero()[:, 0]
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]


@pytest.mark.parametrize("seed", range(60))
def test_a_box_is_the_footprint_of_the_gradient_for_any_stack(seed: int) -> None:
    """Every cell of a random stack, at the rim and inside, on an input that is not square."""
    stack = random_stack(seed)
    draws = np.random.default_rng(1000 + seed)
    size = (int(draws.integers(12, 30)), int(draws.integers(12, 30)))
    height, width = (output_size(stack, side) for side in size)
    if min(height, width) < 1:
        assert min(height, width) == 0
        return
    for place in [(0, 0), (height - 1, width - 1), (height // 2, width // 3), (height - 1, 0)]:
        assert list(box_of(place, stack, size)) == footprint(stack, size, place), (stack, size, place)


def test_published_stacks_have_the_published_fields() -> None:
    assert receptive_field(PUBLISHED_64)[:2] == (15, 2)
    assert receptive_field(PUBLISHED_224)[:2] == (61, 4)
    assert [output_size(PUBLISHED_64, 64), output_size(PUBLISHED_64, 32), output_size(PUBLISHED_224, 224)] == [
        26,
        10,
        43,
    ]


def test_the_padding_moves_the_first_field_out_of_the_picture() -> None:
    """The published visualiser draws [2 i, 2 i + 14], one pixel too low and too short at the top and left."""
    assert box_of((0, 0), PUBLISHED_64, (64, 64)) == (0, 0, 14, 14)
    assert box_of((3, 5), PUBLISHED_64, (64, 64)) == (5, 9, 20, 24)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_encoder_sees_no_more_than_its_box(normalise: bool) -> None:
    """Also with normalisation, which a norm over the whole image would break."""
    torch.manual_seed(0)
    stack = [(3, 2, 1, 8), (3, 1, 0, 16)]
    encoder = PrototypeEncoder(stack, 1, prototypes=3, dimension=16, normalise=normalise)
    x = torch.randn(1, 1, 20, 20, requires_grad=True)
    encoder.distances(x)[0, 0, 4, 3].backward()
    assert x.grad is not None
    y0, x0, y1, x1 = box_of((4, 3), stack, (20, 20))
    outside = x.grad[0, 0].clone()
    outside[y0:y1, x0:x1] = 0.0
    assert torch.count_nonzero(outside) == 0
    assert torch.count_nonzero(x.grad[0, 0, y0:y1, x0:x1]) > 0
