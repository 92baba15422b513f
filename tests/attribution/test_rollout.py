"""The rollout in products against the matrices written down; its corrections, each against the published form of it."""

import pytest
import torch
from torch import Tensor

from meddiff.attribution.rollout import Grid, Rollout, divided, normalised, rolled_text

SIZE, TOKENS = (4, 6), 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def layers(scale: float = 0.1) -> list[tuple[bool, Tensor]]:
    """A U-Net of two resolutions: (cross, weighted), self before cross as a block has them."""
    pixels = [24, 6, 6, 24]
    found = []
    for place, count in enumerate(pixels):
        found += [(False, scale * draw(count, count, seed=place)), (True, scale * draw(count, TOKENS, seed=10 + place))]
    return found


def rolled(products: list[tuple[bool, Tensor]], text: Tensor, unit_rows: bool = False) -> Tensor:
    rollout = Rollout(SIZE, text, unit_rows)
    for cross, weighted in products:
        (rollout.cross_attention if cross else rollout.self_attention)(weighted)
    return rollout.relevance


def written_down(products: list[tuple[bool, Tensor]], text: Tensor, unit_rows: bool = False) -> Tensor:
    """The update rules with R_ii as a matrix, float64; a layer at half resolution is enlarged in rows and columns."""

    def resized(pixels: int) -> tuple[Tensor, Tensor]:
        if pixels == 24:
            return torch.eye(24).double(), torch.eye(24).double()
        rows = torch.kron(torch.eye(2), torch.ones(2, 1))  # (4, 2)
        columns = torch.kron(torch.eye(3), torch.ones(2, 1))  # (6, 3)
        up = torch.kron(rows, columns).double()  # (24, 6)
        return up, up.T / 4

    def norm(relevance: Tensor) -> Tensor:
        excess = relevance - torch.eye(len(relevance))
        return torch.eye(len(relevance)) + divided(excess, excess.sum(dim=1, keepdim=True))

    inside, between = torch.eye(24).double(), torch.zeros(24, TOKENS).double()
    words = norm(torch.eye(TOKENS).double() + text.double())
    for cross, weighted in products:
        up, down = resized(len(weighted))
        if cross:
            between = between + norm(inside).T @ (up @ weighted.double()) @ words
            continue
        square = up @ weighted.double() @ down
        between, inside = between + square @ between, inside + square @ inside
        if unit_rows:
            between = divided(between, between.norm(dim=1, keepdim=True))
    return between.float()


@pytest.mark.parametrize("unit_rows", [False, True])
def test_products_give_what_the_matrices_give(unit_rows: bool) -> None:
    text = rolled_text([0.3 * draw(TOKENS, TOKENS, seed=7), 0.2 * draw(TOKENS, TOKENS, seed=8)], TOKENS)
    torch.testing.assert_close(
        rolled(layers(), text, unit_rows), written_down(layers(), text, unit_rows), rtol=1e-4, atol=1e-6
    )


def test_text_side_is_rolled_out_in_the_order_of_its_layers() -> None:
    one, two = draw(TOKENS, TOKENS, seed=1), draw(TOKENS, TOKENS, seed=2)
    identity = torch.eye(TOKENS)
    torch.testing.assert_close(rolled_text([one, two], TOKENS), (identity + two) @ (identity + one) - identity)
    assert rolled_text([], TOKENS).eq(0).all()
    torch.testing.assert_close(normalised(torch.zeros(TOKENS, TOKENS)), identity)


def test_small_gradients_do_not_vanish_beside_the_identity() -> None:
    """R_ii - I at 1e-9 is nothing in float32 where R_ii is written down, and the spread over pixels would be lost."""
    text = torch.zeros(TOKENS, TOKENS)
    found, expected = rolled(layers(1e-9), text), written_down(layers(1e-9), text)
    torch.testing.assert_close(found / found.max(), expected / expected.max(), rtol=1e-4, atol=1e-5)
    alone = rolled([one for one in layers(1e-9) if one[0]], text)
    assert (found / found.sum() - alone / alone.sum()).abs().max() > 1e-3 * (found / found.sum()).max()


def test_a_pixel_without_relevance_does_not_silence_its_layer() -> None:
    products = layers()
    products[0][1][3] = 0.0  # the first self-attention of pixel 3: its row of R_ii - I has nothing to be divided by
    found = rolled(products[:2], torch.zeros(TOKENS, TOKENS))
    assert found.isfinite().all()
    torch.testing.assert_close(found, written_down(products[:2], torch.zeros(TOKENS, TOKENS)), rtol=1e-4, atol=1e-6)
    assert (found.sum(dim=1) > products[1][1].sum(dim=1)).any(), "the others are spread"
    nothing = rolled([(False, torch.zeros(6, 6)), (True, torch.zeros(6, TOKENS))], torch.zeros(TOKENS, TOKENS), True)
    assert nothing.eq(0).all()


def test_resizing_is_in_two_dimensions() -> None:
    """A layer whose lower right pixel alone attends to a token: its block in the image, not the last pixels of a list."""
    weighted = torch.zeros(6, TOKENS)
    weighted[5, 2] = 1.0
    image = rolled([(True, weighted)], torch.zeros(TOKENS, TOKENS))[:, 2].unflatten(0, SIZE)
    expected = torch.zeros(SIZE)
    expected[2:, 4:] = 1.0
    assert torch.equal(image, expected)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (8, 8), (3, 9)])
def test_a_grid_and_its_transposes(size: tuple[int, int]) -> None:
    """<up x, y> = <x, up' y>, and the same of down; constants stay constants, also with odd sides, which are halved upwards."""
    pixels = -(-size[0] // 2) * -(-size[1] // 2)
    grid = Grid.of(size, pixels)
    x, y = draw(pixels, 1), draw(size[0] * size[1], 1, seed=1)
    torch.testing.assert_close((grid.up(x) * y).sum(), (x * grid.up_transposed(y)).sum())
    torch.testing.assert_close((grid.down(y) * x).sum(), (y * grid.down_transposed(x)).sum())
    torch.testing.assert_close(grid.down(torch.ones(size[0] * size[1], 1)), torch.ones(pixels, 1))
    with pytest.raises(ValueError, match="does not lie in"):
        Grid.of((8, 8), 20)
