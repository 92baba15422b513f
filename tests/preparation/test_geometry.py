"""Resize and centre crop: boxes and masks land where the image does, over random sizes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.preparation.geometry import Crop, resize_image, resize_mask, transform_boxes, transform_phrases
from meddiff.shards.sample import Box, Phrase


def draw_case(number: int) -> tuple[int, int, int, tuple[int, int, int, int]]:
    """(width, height, resolution, whole-pixel box) at random; boxes large enough to be seen after the resize."""
    draw = generator("geometry", number)
    width, height = (int(n) for n in draw.integers(24, 400, 2))
    resolution = int(draw.choice([32, 48, 64, 96, 128, 256]))
    least = int(np.ceil(4 * min(width, height) / resolution)) + 1
    w, h = (int(draw.integers(min(least, side), side + 1)) for side in (width, height))
    return width, height, resolution, (int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1)), w, h)


def edges(image: NDArray[np.uint8], axis: int) -> tuple[float, float]:
    """Where a bright rectangle begins and ends along an axis, to fractions of a pixel, from its profile."""
    profile = image.max(axis=axis).astype(float) / 255
    bright = np.flatnonzero(profile >= 0.5)
    return float(bright[0]), float(bright[-1] + 1)


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_a_box_drawn_before_preparation_lands_on_the_stored_box_within_a_pixel(start):
    seen = 0
    for number in range(start, start + 100):
        width, height, resolution, (x, y, w, h) = draw_case(number)
        image = np.zeros((height, width), np.uint8)
        image[y : y + h, x : x + w] = 255
        moved = transform_boxes([Box("a", x, y, w, h)], (width, height), resolution)
        stored = resize_image(image, resolution)
        assert stored.shape == (resolution, resolution)
        (box,) = moved.boxes
        if box is None:
            assert moved.lost == 1
            assert stored.max() < 128
            continue
        if min(box.w, box.h) < 2:
            continue  # a sliver at the edge of the crop
        seen += 1
        for (low, high), begin, size in ((edges(stored, 0), box.x, box.w), (edges(stored, 1), box.y, box.h)):
            assert abs(low - begin) <= 1
            assert abs(high - (begin + size)) <= 1
    assert seen > 60


def test_boxes_move_by_the_formula_in_floats():
    # 600 x 400: the square is x 100..500, scale 512 / 400
    moved = transform_boxes([Box("a", 150.25, 10.5, 100, 20.75)], (600, 400), 512)
    (box,) = moved.kept
    assert (box.x, box.y, box.w, box.h) == pytest.approx((50.25 * 1.28, 10.5 * 1.28, 128, 20.75 * 1.28), abs=1e-9)
    assert (moved.cut, moved.lost) == (0, 0)


def test_boxes_cut_or_lost_by_the_crop_are_counted():
    boxes = [
        Box("left", 0, 0, 50, 50),
        Box("cut", 80, 10, 40, 40),
        Box("whole", 200, 10, 40, 40),
        Box("all", 0, 0, 600, 400),
    ]
    moved = transform_boxes(boxes, (600, 400), 400)
    assert moved.lost == 1
    assert moved.cut == 2
    # scales of 1 and 2 here and below: whole numbers, exact
    assert moved.boxes == (None, Box("cut", 0, 10, 20, 40), Box("whole", 100, 10, 40, 40), Box("all", 0, 0, 400, 400))
    phrases = transform_phrases([Phrase("gone", "left", boxes[:1]), Phrase("two", "a", boxes[:2])], (600, 400), 400)  # type: ignore[arg-type]
    assert [len(phrase.boxes) for phrase in phrases] == [0, 1]


def test_a_box_that_overhangs_the_image_ends_at_its_border():
    (box,) = transform_boxes([Box("a", -10, 90, 30, 30)], (100, 100), 200).boxes
    assert box == Box("a", 0, 180, 40, 20)


def test_the_resize_is_the_short_side_then_the_centre_crop():
    from torchvision.transforms.v2 import functional

    for number in range(20):
        draw = generator("resize", number)
        short = 2 * int(draw.integers(40, 150))
        sides = (short, short * 3 // 2) if number % 2 else (short * 3 // 2, short)  # 64 x 96 without a rounding
        coarse = torch.from_numpy(draw.integers(0, 256, (1, 1, 12, 12)).astype(np.float32))
        smooth = torch.nn.functional.interpolate(coarse, sides, mode="bicubic").clamp(0, 255)
        image = smooth[0, 0].round().to(torch.uint8)
        expected = functional.center_crop(functional.resize(image[None], [64], antialias=True), [64, 64])[0].numpy()
        stored = resize_image(image.numpy(), 64)
        assert np.abs(stored.astype(int) - expected).max() <= 1


def test_colour_is_kept():
    image = generator("colour").integers(0, 256, (50, 70, 3)).astype(np.uint8)
    stored = resize_image(image, 50)
    np.testing.assert_array_equal(stored, image[:, 10:60])


def test_masks_move_like_the_image():
    for number in range(60):
        width, height, resolution, (x, y, w, h) = draw_case(number)
        mask = np.zeros((height, width), bool)
        mask[y : y + h, x : x + w] = True
        (box,) = transform_boxes([Box("a", x, y, w, h)], (width, height), resolution).boxes
        stored = resize_mask(mask, resolution)
        if box is None or min(box.w, box.h) < 2:
            continue
        rows, columns = np.flatnonzero(stored.any(axis=1)), np.flatnonzero(stored.any(axis=0))
        assert abs(columns[0] - box.x) <= 1
        assert abs(columns[-1] + 1 - box.x - box.w) <= 1
        assert abs(rows[0] - box.y) <= 1
        assert abs(rows[-1] + 1 - box.y - box.h) <= 1
        assert abs(stored.sum() - box.w * box.h) <= 2 * (box.w + box.h)


def test_no_small_mask_is_lost_and_none_appears():
    for number in range(20):
        draw = generator("small mask", number)
        height, width = (int(n) for n in draw.integers(500, 4000, 2))
        mask = np.zeros((height, width), bool)
        crop = Crop(width, height, 64)
        left, upper, _, _ = crop.rectangle
        row, column = (int(np.ceil(begin)) + int(draw.integers(crop.side - 1)) for begin in (upper, left))
        mask[row, column] = True
        stored = resize_mask(mask, 64)
        assert 1 <= stored.sum() <= 4
        place = np.argwhere(stored).mean(axis=0) + 0.5
        assert abs(place[0] - (row + 0.5 - upper) * crop.scale) <= 1
        assert abs(place[1] - (column + 0.5 - left) * crop.scale) <= 1
    assert not resize_mask(np.zeros((300, 200), bool), 64).any()
    outside = np.zeros((100, 300), bool)
    outside[:, :20] = True
    assert not resize_mask(outside, 64).any()


def coverage_by_hand(mask: NDArray[np.bool_], resolution: int) -> NDArray[np.float64]:
    """Area of each stored pixel that the mask covers: every native pixel's overlap with it, one by one."""
    left, upper, right, _ = Crop(mask.shape[1], mask.shape[0], resolution).rectangle
    side = (right - left) / resolution
    covered = np.zeros((resolution, resolution))
    for row, column in np.argwhere(mask):
        for i in range(resolution):
            for j in range(resolution):
                down = min(upper + (i + 1) * side, row + 1) - max(upper + i * side, row)
                across = min(left + (j + 1) * side, column + 1) - max(left + j * side, column)
                covered[i, j] += max(down, 0) * max(across, 0) / side**2
    return covered


def test_mask_pixels_are_those_covered_by_half_of_their_area():
    for number in range(12):
        draw = generator("mask by area", number)
        height, width, resolution = (int(n) for n in draw.integers([9, 9, 5], [30, 30, 12]))
        mask = np.zeros((height, width), bool)
        mask[draw.random((height, width)) < 0.4] = True
        mask[: height // 2] |= draw.random((height // 2, width)) < 0.5
        covered = coverage_by_hand(mask, resolution)
        stored = resize_mask(mask, resolution)
        clear = abs(covered - 0.5) > 1e-5
        assert stored[clear & (covered > 0.5)].all()
        # What is less than half covered may only be the pixel of a part that would be lost.
        assert (covered[stored] > 0).all()


def test_no_part_is_lost_beside_a_large_one():
    for number in range(30):
        draw = generator("parts", number)
        height, width = (int(n) for n in draw.integers(300, 900, 2))
        mask = np.zeros((height, width), bool)
        mask[height // 3 : height // 2, width // 3 : width // 2] = True
        crop = Crop(width, height, 64)
        left, upper, right, lower = crop.rectangle
        specks = []
        for _ in range(6):
            row, column = int(draw.integers(height)), int(draw.integers(width))
            window = mask[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            if not window.any():
                mask[row, column] = True
                if left <= column and column + 1 <= right and upper <= row and row + 1 <= lower:
                    specks.append((int((row + 0.5 - upper) * crop.scale), int((column + 0.5 - left) * crop.scale)))
        stored = resize_mask(mask, 64)
        for row, column in specks:
            assert stored[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].any(), (number, row, column)
        assert stored.sum() <= (mask.sum() - 6) * crop.scale**2 * 1.3 + 6 + 4 * 64


def test_a_mask_at_the_stored_size_stays_as_it_is():
    mask = generator("same").random((64, 64)) < 0.3
    assert np.array_equal(resize_mask(mask, 64), mask)
    assert resize_mask(np.ones((200, 300), bool), 64).all()
