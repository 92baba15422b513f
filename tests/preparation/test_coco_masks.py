"""Masks of MS-COCO against brute force."""

import numpy as np
import pytest

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.preparation.coco_masks import decode_counts, polygon_mask, rle_mask, segmentation_mask
from tests.builders.brute_polygon import brute_polygon
from tests.builders.mscoco_tree import HEIGHT, WIDTH, runs_of


def compressed(runs: list[int]) -> str:
    """The text form: differences from the fourth on, five bits a character, sixth bit for more."""
    out = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            out += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return out


@pytest.mark.parametrize("seed", range(40))
def test_polygons_are_filled_as_by_hand_also_where_they_cross_themselves_or_leave_the_image(seed):
    draw = generator("coco polygon", seed)
    height, width, corners = (int(draw.integers(low, high)) for low, high in ((1, 30), (1, 30), (3, 12)))
    points = draw.uniform(-8, 36, 2 * corners)
    # whole and half numbers put corners and edges onto pixel centres
    points = (points if seed % 2 else np.round(points * 2) / 2).tolist()
    # both evaluate one formula in one order, so that they agree on centres that lie on an edge too
    np.testing.assert_array_equal(polygon_mask(points, height, width), brute_polygon(points, height, width))


def test_two_polygons_that_share_an_edge_cover_each_pixel_once():
    left, right = [0.5, 0.5, 9.5, 0.5, 4.5, 9.5, 0.5, 9.5], [9.5, 0.5, 12.5, 0.5, 12.5, 9.5, 4.5, 9.5]
    whole = polygon_mask([0.5, 0.5, 12.5, 0.5, 12.5, 9.5, 0.5, 9.5], 12, 14)
    parts = [polygon_mask(points, 12, 14).astype(int) for points in (left, right)]
    np.testing.assert_array_equal(parts[0] + parts[1], whole.astype(int))


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_come_back_from_both_forms(seed):
    draw = generator("coco runs", seed)
    height, width = int(draw.integers(1, 40)), int(draw.integers(1, 40))
    mask = draw.random((height, width)) < draw.random()
    if seed % 3 == 0:  # long runs, whose numbers need several characters
        height, width = 90, 70
        mask = np.zeros((height, width), bool)
        mask[:, int(draw.integers(0, 30)) : int(draw.integers(31, 70))] = True
    runs = runs_of(mask)
    assert decode_counts(compressed(runs)) == runs
    for counts in (runs, compressed(runs)):
        np.testing.assert_array_equal(
            segmentation_mask({"size": [height, width], "counts": counts}, height, width), mask
        )


def test_an_instance_is_the_union_of_its_polygons():
    parts = [[1, 1, 6, 1, 6, 6, 1, 6], [4, 4, 9, 4, 9, 9, 4, 9]]
    expected = brute_polygon(parts[0], HEIGHT, WIDTH) | brute_polygon(parts[1], HEIGHT, WIDTH)
    np.testing.assert_array_equal(segmentation_mask(parts, HEIGHT, WIDTH), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        None, [], [1, 2, 3], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, float("nan")]], [[1, 2, 3, 4, 5, 10**400]], {}, {"counts": [240]},
        {"size": [HEIGHT, WIDTH], "counts": [239]}, {"size": [HEIGHT, WIDTH], "counts": [-1, 241]},
        {"size": [HEIGHT, WIDTH], "counts": [10**12]}, {"size": [WIDTH, HEIGHT], "counts": [240]},
        {"size": [HEIGHT, WIDTH], "counts": "`"}, {"size": [HEIGHT, WIDTH], "counts": "\x01"},
        {"size": [HEIGHT, WIDTH], "counts": [240.0]},
    ],
)  # fmt: skip
def test_damaged_segmentations_are_refused(segmentation):
    with pytest.raises(UserError):
        segmentation_mask(segmentation, HEIGHT, WIDTH)


def test_masks_agree_with_the_official_code_where_it_is_installed():
    official = pytest.importorskip("pycocotools.mask", reason="pycocotools is a test reference only")
    draw = generator("coco official")
    for _ in range(20):
        angles = np.sort(draw.uniform(0, 2 * np.pi, 9))
        radii = draw.uniform(8, 28, 9)
        points = np.stack([32 + radii * np.cos(angles), 32 + radii * np.sin(angles)], 1).reshape(-1).tolist()
        theirs = official.decode(official.frPyObjects([points], 64, 64))[:, :, 0] > 0
        assert (theirs != polygon_mask(points, 64, 64)).mean() < 0.01
        text = official.encode(np.asfortranarray(theirs.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(rle_mask(text, 64, 64), theirs)
