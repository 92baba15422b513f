"""All scores of a sample in one pass: the same as one by one, known answers, and nothing undefined passes for a number."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.metrics import score_grid_maps
from meddiff.metrics.functional import (
    SAMPLE_COLUMNS,
    box_contrast_to_noise_ratio,
    box_masks,
    centre_distance,
    contrast_to_noise_ratio,
    foreground,
    mean_iou,
    min_max,
    mixture_iou,
    mixture_threshold,
    multi_threshold_iou,
    paper_iou,
    pixel_auroc,
    pointing_game,
    resize_maps,
    resize_masks,
)


def batch(
    seed: int, n: int = 6, grid: int = 16, size: tuple[int, int] = (64, 96)
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Maps on a grid, masks on an image, and the one to three boxes of each mask."""
    random = generator(seed, "sample scores")
    heat = torch.from_numpy(random.gamma(1.5, size=(n, grid, grid))).float()
    boxes = []
    for number in range(n):
        count = 1 + number % 3
        x, y = random.uniform(0, size[1] - 25, count), random.uniform(0, size[0] - 25, count)
        boxes.append(torch.from_numpy(np.stack([x, y, *random.uniform(8, 24, (2, count))], axis=1)))
    return heat, torch.stack([box_masks(table, size).any(dim=0) for table in boxes]), boxes


def test_columns_are_the_functions_one_by_one() -> None:
    heat, masks, boxes = batch(0)
    scores = score_grid_maps(heat, masks, boxes)
    assert tuple(scores) == SAMPLE_COLUMNS
    full = resize_maps(heat, (64, 96))
    cuts = mixture_threshold(heat)
    small = torch.stack([box_masks(b, (16, 16), (16 / 64, 16 / 96)).any(dim=0) for b in boxes])
    signed = contrast_to_noise_ratio(full, masks)
    expected = {
        "cnr": signed,
        "cnr_abs": contrast_to_noise_ratio(full, masks, absolute=True),
        "cnr_biased": contrast_to_noise_ratio(full, masks, unbiased=False),
        "cnr_box": box_contrast_to_noise_ratio(full, boxes),
        "cnr_grid": contrast_to_noise_ratio(heat, small),
        "cnr_paper": signed,
        "auroc": pixel_auroc(full, masks),
        "top1": pointing_game(full, masks),
        "iou": mixture_iou(full, masks, cuts)[0],
        "miou": mean_iou(full, masks, cuts),
        "iou_paper": paper_iou(heat, masks)[0],
        "miou_paper": paper_iou(heat, masks)[1],
        "miou_biovil": multi_threshold_iou(full, masks),
        "distance": centre_distance(foreground(full, cuts), boxes),
    }
    for name in SAMPLE_COLUMNS:
        torch.testing.assert_close(scores[name], expected[name], rtol=1e-9, atol=0, equal_nan=True, msg=name)
    assert scores["distance"].isfinite().tolist() == [True, False, False] * 2
    assert (signed < 0).any(), "signs should matter"


def test_paper_cnr_is_that_of_the_map_from_0_to_1() -> None:
    heat, masks, boxes = batch(1)
    scaled = resize_maps(min_max(heat), (64, 96))
    expected = contrast_to_noise_ratio(scaled, masks)
    torch.testing.assert_close(score_grid_maps(heat, masks, boxes)["cnr_paper"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", [(0, 0), (3, 9), (12, 10)])
def test_perfect_inverted_and_constant_maps(place: tuple[int, int]) -> None:
    top, left = place
    heat = torch.zeros(4, 16, 16)
    heat[0] = torch.linspace(0, 0.01, 256).reshape(16, 16)
    heat[1] = heat[0]
    heat[0, top : top + 4, left : left + 4] += 1.0
    heat[1, top : top + 4, left : left + 4] -= 1.0
    heat[2] = 0.3
    heat[3, 5, 5] = math.nan
    box = torch.tensor([[left, top, 4, 4]])
    masks = box_masks(box, (16, 16)).expand(4, -1, -1)
    scores = score_grid_maps(heat, masks, [box] * 4)
    known = {"auroc": (1, 0), "top1": (1, 0), "distance": (0, None), "miou_biovil": (1, None)}
    for name, (perfect, inverted) in known.items():
        assert scores[name][0] == perfect, name
        assert inverted is None or scores[name][1] == inverted, name
    assert scores["iou"][0] >= 0.75, "smoothing takes the corners, and no more"
    assert scores["iou"][1] <= 4 / 256
    assert scores["cnr"][0] > 50
    assert scores["cnr"][1] < -50
    assert scores["cnr_abs"][1] > 50
    for name, values in scores.items():
        assert values[2:].isnan().all(), f"{name} of a constant map, or of one that is not a number"
        assert values[:2].isfinite().all(), name


def test_a_sample_does_not_depend_on_its_batch() -> None:
    heat, masks, boxes = batch(2, n=11)
    heat[4] = math.inf
    together = score_grid_maps(heat, masks, boxes)
    for n in (0, 3, 4, 10):
        alone = score_grid_maps(heat[n : n + 1], masks[n : n + 1], boxes[n : n + 1])
        for name in SAMPLE_COLUMNS:
            torch.testing.assert_close(together[name][n], alone[name][0], rtol=1e-9, atol=0, equal_nan=True, msg=name)


def test_without_boxes_the_masks_are_scored() -> None:
    heat, masks, boxes = batch(3)
    with_boxes, without = score_grid_maps(heat, masks, boxes), score_grid_maps(heat, masks)
    for name in SAMPLE_COLUMNS:
        if name in ("distance", "cnr_box"):
            assert without[name].isnan().all()
        elif name != "cnr_grid":
            torch.testing.assert_close(without[name], with_boxes[name], rtol=1e-12, atol=0)
    grid = contrast_to_noise_ratio(heat, resize_masks(masks, (16, 16)))
    torch.testing.assert_close(without["cnr_grid"], grid, rtol=1e-12, atol=0)


def test_boxes_that_are_not_the_mask_are_scored_as_boxes() -> None:
    heat, masks, _ = batch(4, n=1)
    box = torch.tensor([[70, 40, 10, 10]])
    found = score_grid_maps(heat, masks, [box])["cnr_box"]
    torch.testing.assert_close(found, box_contrast_to_noise_ratio(resize_maps(heat, (64, 96)), [box]))
    assert not torch.allclose(found, score_grid_maps(heat, masks)["cnr"])


@pytest.mark.parametrize("seed", range(25))
def test_random_shapes_keep_the_bounds_and_symmetries(seed: int) -> None:
    random = generator(seed, "shapes")
    n, h, w = (int(v) for v in random.integers(1, 9, 3))
    size = (int(random.integers(3, 70)), int(random.integers(3, 70)))
    levels = float(random.choice([2, 5, 1e6]))
    heat = torch.from_numpy(np.floor(random.random((n, h, w)) * levels) / levels).float()
    boxes = []
    for _ in range(n):
        edges = np.sort(random.uniform(0, 1, (2, 2)), axis=1) * [[size[1]], [size[0]]]
        edges[:, 1] += 1e-3
        boxes.append(torch.from_numpy(np.array([[*edges[:, 0], *(edges[:, 1] - edges[:, 0])]])))
    masks = torch.stack([box_masks(table, size).any(dim=0) for table in boxes])
    assert (masks.sum(dim=(1, 2)) > 0).all(), "no box is lost"
    scores = score_grid_maps(heat, masks, boxes)
    for name in ("auroc", "top1", "iou", "miou", "miou_biovil", "iou_paper", "miou_paper"):
        values = scores[name][scores[name].isfinite()]
        assert ((values >= 0) & (values <= 1)).all(), name
    constant = (heat == heat[:, :1, :1]).all(dim=2).all(dim=1)
    for name in SAMPLE_COLUMNS:
        assert scores[name].shape == (n,)
        assert scores[name][constant].isnan().all()
    # The complement of the mask loses where the mask wins; so does the negative map.
    full = resize_maps(heat, size)
    for turned in (pixel_auroc(full, ~masks), pixel_auroc(-full, masks)):
        torch.testing.assert_close(turned, 1 - scores["auroc"], rtol=0, atol=1e-12, equal_nan=True)
    for turned in (contrast_to_noise_ratio(full, ~masks), contrast_to_noise_ratio(-full, masks)):
        torch.testing.assert_close(turned, -scores["cnr"], rtol=1e-9, atol=1e-12, equal_nan=True)
    mirrored = score_grid_maps(heat.flip(2), masks.flip(2))
    torch.testing.assert_close(mirrored["cnr"], scores["cnr"], rtol=1e-4, atol=1e-5, equal_nan=True)
    if levels > 5:  # the resize rounds differently from the other side, which parts equal values
        for name in ("auroc", "iou", "miou", "miou_biovil", "iou_paper"):
            torch.testing.assert_close(mirrored[name], scores[name], rtol=0, atol=0.02, equal_nan=True, msg=name)


def test_no_samples_give_no_scores() -> None:
    scores = score_grid_maps(torch.zeros(0, 4, 4), torch.zeros(0, 8, 8, dtype=torch.bool), [])
    assert {tuple(values.shape) for values in scores.values()} == {(0,)}
    assert {values.dtype for values in scores.values()} == {torch.float64}


def test_bad_input_is_told() -> None:
    heat, masks, boxes = batch(5, n=2)
    with pytest.raises(UserError, match="1 masks and 2 arrays of boxes for 2 maps"):
        score_grid_maps(heat, masks[:1], boxes)
    with pytest.raises(UserError, match="2 masks and 1 arrays of boxes for 2 maps"):
        score_grid_maps(heat, masks, boxes[:1])
    with pytest.raises(UserError, match="boolean"):
        score_grid_maps(heat, masks.float(), boxes)
    with pytest.raises(UserError, match=r"\(N, H, W\)"):
        score_grid_maps(heat[0], masks, boxes)
    with pytest.raises(UserError, match="size"):
        resize_maps(heat, (0, 4))


def test_a_resized_mask_is_covered_by_half() -> None:
    random = np.random.default_rng(6)
    masks = torch.from_numpy(random.random((3, 12, 20)) < 0.2)
    masks[:, :, ::3] = masks[:, 0] = True  # every pixel touches a column, and the columns a row: one part
    expected = masks.double().reshape(3, 4, 3, 5, 4).mean(dim=(2, 4)) >= 0.5
    assert torch.equal(resize_masks(masks, (4, 5)), expected)
    assert not expected.all()


@pytest.mark.parametrize("target", [(4, 4), (5, 7), (1, 1), (96, 31)])
def test_no_part_of_a_mask_is_lost(target: tuple[int, int]) -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    for row, column in ((0, 0), (20, 40), (63, 63), (40, 3)):
        mask[0, row : row + 2, column : column + 2] = True
        one = torch.zeros_like(mask)
        one[0, row : row + 2, column : column + 2] = True
        found, place = resize_masks(mask, target)[0], resize_masks(one, target)[0]
        assert place.any()
        assert (found & place).any()
    assert not resize_masks(torch.zeros_like(mask), target).any()
    assert resize_masks(torch.ones_like(mask), target).all()


def test_a_box_keeps_its_place_on_a_small_grid() -> None:
    mask = box_masks(torch.tensor([[16.0, 32.0, 24.0, 8.0]]), (64, 64))
    expected = box_masks(torch.tensor([[2.0, 4.0, 3.0, 1.0]]), (8, 8))
    assert torch.equal(resize_masks(mask, (8, 8)), expected)
    assert torch.equal(box_masks(torch.tensor([[16.0, 32.0, 24.0, 8.0]]), (8, 8), (1 / 8, 1 / 8)), expected)
