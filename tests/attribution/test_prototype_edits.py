"""A prototype that is raised shows its own patch at its own place, and nothing else of the picture moves."""

import pytest
import torch

from meddiff.attribution.inversion import ddim_grid, edited
from meddiff.attribution.prototype_edits import best_view, check_edits, in_pixels, inverted, natural_order, watch
from meddiff.attribution.prototype_maps import maps_on_input
from meddiff.common.errors import UserError
from meddiff.models.patronus import Patronus
from meddiff.models.receptive_field import box_of
from tests.builders.planted_prototypes import PLACES, WHOLE, planted_patronus, planted_pictures

GRID = ddim_grid(20)


@pytest.fixture(scope="module")
def model() -> Patronus:
    return planted_patronus()


def strengths(images: int = 4) -> torch.Tensor:
    draws = torch.Generator().manual_seed(2)
    return (torch.rand(images, 6, generator=draws) < 0.3).float()


@pytest.mark.parametrize("prototype", [0, 3, 5])
def test_what_and_where(model: Patronus, prototype: int) -> None:
    given = strengths()
    given[:, prototype] = 0.0
    start = inverted(model, planted_pictures(model, given), GRID)
    drawn = watch(model, start.noise, edited(start.activations, {prototype: WHOLE}), GRID).clean
    view = best_view(model, prototype, start.activations, drawn)
    y, x = PLACES[prototype]
    assert view.box == (y, x, y + 5, x + 5)
    assert view.after > view.before + 0.5
    base = watch(model, start.noise, start.activations, GRID).clean
    change = (drawn - base).abs()[:, 0]
    inside = change[:, y : y + 5, x : x + 5]
    assert float(inside.mean()) > 0.2
    outside = change.clone()
    outside[:, y : y + 5, x : x + 5] = 0
    assert float(outside.max()) < 0.02 * float(inside.max())


def test_the_view_is_the_picture_with_most_of_it_and_boxes_become_pixels(model: Patronus) -> None:
    pictures = planted_pictures(model, torch.tensor([[0.0] * 6, [1.0, *[0.0] * 5], [0.4, *[0.0] * 5]]))
    before = model.activations(pictures).detach()
    assert best_view(model, 0, before, pictures).image == 1
    assert natural_order(before, 0, 2) == [1, 2]
    assert in_pixels((1, 2, 3, 4), 8) == (8, 16, 24, 32)


def test_edits_outside_of_what_an_image_can_have_are_refused() -> None:
    check_edits({0: 9.2, 5: 0.01}, 6)
    with pytest.raises(UserError, match="There is no prototype 6: this model has 6, 0 to 5"):
        check_edits({6: 1.0}, 6)
    for value in (0.0, -1.0, 9.5, float("nan")):
        with pytest.raises(UserError, match="cannot be set"):
            check_edits({0: value}, 6)


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 2, 1, 4), (3, 1, 0, 4), (3, 1, 0, 4)],
        [(5, 2, 1, 4), (5, 2, 1, 4), (3, 1, 0, 4)],
        [(1, 1, 0, 4)],
        [(4, 3, 2, 4), (2, 1, 0, 4)],
    ],
)
def test_a_cell_of_a_map_stands_in_the_middle_of_what_it_looks_at(layers: list[tuple[int, int, int, int]]) -> None:
    """The usual stretching to the size of the picture, the control, moves cells near the border."""
    side, cells = 48, 48
    for kernel, stride, padding, _ in layers:
        cells = (cells + 2 * padding - kernel) // stride + 1
    inner = [place for place in range(cells) if _whole(place, layers, side)]
    moved = []
    for place in (inner[0], inner[-1]):
        heat = torch.zeros(1, cells, cells)
        heat[0, place, place] = 1.0
        y0, x0, y1, x1 = box_of((place, place), layers, (side, side))
        middle = ((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2)
        found = _centre(maps_on_input(heat, layers, (side, side))[0])
        assert found == pytest.approx(middle, abs=1e-6)
        plain = torch.nn.functional.interpolate(heat[None], (side, side), mode="bilinear", align_corners=False)[0, 0]
        moved.append(abs(_centre(plain)[0] - middle[0]))
    if layers[0][0] in (3, 5):  # the others happen to reach both borders
        assert max(moved) > 0.5


def _whole(place: int, layers: list[tuple[int, int, int, int]], side: int) -> bool:
    y0, _, y1, _ = box_of((place, place), layers, (side, side))
    return (
        y0 > 0
        and y1 < side
        and y1 - y0 == box_of((place + 1, 0), layers, (side, side))[2] - box_of((place + 1, 0), layers, (side, side))[0]
    )


def _centre(heat: torch.Tensor) -> tuple[float, float]:
    weights = heat.double() / heat.double().sum()
    rows, columns = torch.arange(len(heat)).double(), torch.arange(heat.shape[1]).double()
    return float((weights.sum(1) * rows).sum()), float((weights.sum(0) * columns).sum())
