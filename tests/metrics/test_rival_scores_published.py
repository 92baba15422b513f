"""Scores of rival protocols: the specification's numbers (sections 7 and 9), and what published code makes of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import (
    box_contrast_to_noise_ratio,
    box_masks,
    contrast_to_noise_ratio,
    min_max,
    multi_threshold_iou,
    pixel_auroc,
)
from meddiff.metrics.functional.layer_contrast import (
    contrast_of,
    greedy_subset,
    mean_cnr,
    subset_cnr,
    subset_weights,
)
from meddiff.metrics.functional.map_filters import otsu_threshold, otsu_zeroed, smoothed
from meddiff.metrics.functional.map_fusion import bbm_mix, likeness, map_product, scaled
from meddiff.metrics.published_means import squared_counts_mean
from meddiff.metrics.statistics import macro_mean, micro_mean

#: The map and boxes of section 7.
MAP = torch.tensor([[[9.0, 7, 1, 0], [8, 6, 1, 1], [1, 0, 5, 3], [0, 1, 4, 2]]])
A, B = [0, 0, 2, 2], [2, 2, 2, 2]


def union() -> Tensor:
    return box_masks(torch.tensor([A, B]), (4, 4)).any(dim=0)[None]


def test_the_specification_s_ratios_of_two_boxes() -> None:
    assert float(contrast_to_noise_ratio(MAP, union())) == pytest.approx(1.947220, abs=1e-6)
    assert float(contrast_to_noise_ratio(MAP, union(), unbiased=False)) == pytest.approx(2.081666, abs=1e-6)


def test_boxes_in_another_order_have_another_published_score_and_the_same_of_ours() -> None:
    def published(*boxes: list[int]) -> float:
        found = box_contrast_to_noise_ratio(MAP, [torch.tensor(boxes)], unbiased=False, exterior="later")
        return float(found)

    assert published(A) == pytest.approx(3.092809, abs=1e-6), "B counts as outside"
    assert published(B) == pytest.approx(0.166149, abs=1e-6), "A counts as outside"
    assert published(A, B) == pytest.approx((3.092809 + 2.359750) / 2, abs=1e-6) == pytest.approx(2.726279, abs=1e-6)
    assert published(B, A) == pytest.approx((0.166149 + 5.642881) / 2, abs=1e-6) == pytest.approx(2.904515, abs=1e-6)
    ours = [
        float(box_contrast_to_noise_ratio(MAP, [torch.tensor(boxes)], unbiased=False)) for boxes in ([A, B], [B, A])
    ]
    assert ours == pytest.approx([4.0013, 4.0013], abs=1e-4)


def test_the_specification_s_iou_at_five_thresholds_and_the_exact_auroc() -> None:
    scores = [float(multi_threshold_iou(MAP, union(), [cut])) for cut in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert scores == pytest.approx([0.615385, 1, 0.875, 0.75, 0.625], abs=1e-6)
    assert float(multi_threshold_iou(MAP, union())) == pytest.approx(0.773077, abs=1e-6)
    assert float(pixel_auroc(MAP, union())) == 1.0


def binned_auroc(heat: Tensor, mask: Tensor, thresholds: int) -> float:
    """As published: a curve of few thresholds."""
    cuts = torch.linspace(0, 1, thresholds, dtype=torch.float64)
    hits = [(float((heat[mask] >= cut).double().mean()), float((heat[~mask] >= cut).double().mean())) for cut in cuts]
    points = [(1.0, 1.0), *hits, (0.0, 0.0)]
    return sum((a[1] - b[1]) * (a[0] + b[0]) / 2 for a, b in itertools.pairwise(points))


def test_a_curve_of_five_thresholds_is_no_auroc() -> None:
    """A map that is right everywhere, but faint: all of it lies in one bin."""
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:5, 2:5] = True
    heat = 0.05 * mask.double() + 0.1 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)).double() * 0.4
    heat[0, 0, 0], heat[0, 7, 7] = 0.0, 1.0  # one bright pixel of the background sets the scale
    scaled_map = min_max(heat)
    assert binned_auroc(scaled_map, mask, 5) < 0.52
    assert float(pixel_auroc(scaled_map, mask)) == pytest.approx(1 - 1 / 55, abs=1e-9)
    assert binned_auroc(scaled_map, mask, 2_001) == pytest.approx(1 - 1 / 55, abs=2e-3), "the control: many thresholds"


def test_otsu_parts_two_classes_and_changes_the_ratio_that_it_is_reported_beside() -> None:
    maps = torch.cat([MAP, MAP.flip(2) * 3 + 1, torch.ones(1, 4, 4), torch.full((1, 4, 4), math.nan)])
    cut = otsu_threshold(maps)
    values = np.sort(MAP.flatten().unique().numpy())
    best = min(values[:-1], key=lambda at: _within(MAP.flatten().numpy(), at))  # brute force over every cut
    above = MAP.flatten() > cut[0]
    assert torch.equal(above, MAP.flatten() > best)
    assert float(cut[1]) == pytest.approx(3 * float(cut[0]) + 1), "an affine change moves it along"
    assert cut[2:].isnan().all()
    zeroed, plain = otsu_zeroed(MAP), min_max(MAP)
    assert torch.equal(zeroed > 0, (cut[0] < MAP))
    assert torch.equal(zeroed[zeroed > 0], plain[zeroed > 0])
    with_cut, without = (float(contrast_to_noise_ratio(one, union())) for one in (zeroed, plain))
    assert without == pytest.approx(1.947220, abs=1e-6)
    assert abs(with_cut - without) > 0.1, "so both are presets"
    assert otsu_zeroed(maps[2:]).isnan().all()


def _within(values: np.ndarray, cut: float) -> float:
    parts = values[values <= cut], values[values > cut]
    return sum(len(part) * float(part.var()) for part in parts)


def test_a_gaussian_keeps_the_sum_and_a_width_of_nothing_the_map() -> None:
    maps = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(smoothed(maps, 0), maps.double())
    wide = smoothed(maps, 1.5)
    torch.testing.assert_close(wide.sum(dim=(1, 2)), maps.double().sum(dim=(1, 2)))
    assert float(wide.var()) < 0.2 * float(maps.var())
    torch.testing.assert_close(wide[0], smoothed(maps[:1], 1.5)[0], msg="maps do not run into one another")
    with pytest.raises(UserError, match="sigma is -1"):
        smoothed(maps, -1)


def test_the_specification_s_merge() -> None:
    a, m = torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[[1.0, 0.5, 0.0]]])

    def merged(share: float) -> list[float]:
        return bbm_mix(a, m, torch.tensor([share])).flatten().tolist()

    assert merged(0.25) == pytest.approx([0.25, 0.546875, 0.75])
    assert merged(0.0) == pytest.approx(a.flatten().tolist())
    assert merged(1.0) == pytest.approx(m.flatten().tolist())
    one = torch.ones(1, 1, 1)
    beyond = [float(bbm_mix(one, one, torch.tensor([share]))) for share in (0.25, 0.5)]
    assert beyond == pytest.approx([1.1875, 1.25]), "published maps leave 0..1"


def test_a_matrix_product_of_maps_is_no_product_of_places() -> None:
    """Both maps see one place. Where they agree is that place; the published product puts it elsewhere, or nowhere."""
    start, words = torch.zeros(2, 1, 16, 16)
    start[0, 3, 9] = words[0, 3, 9] = 1.0
    assert map_product(start, words).abs().max() == 0, "column 9 of the one meets row 9 of the other"
    words[0, 9, 2] = 0.5
    published = map_product(start, words)[0]
    assert divmod(int(published.argmax()), 16) == (3, 2), "a place where neither map is bright"
    ours = map_product(start, words, "elementwise")[0]
    assert divmod(int(ours.argmax()), 16) == (3, 9)
    with pytest.raises(UserError, match="bbm_elementwise"):
        map_product(torch.ones(1, 4, 5), torch.ones(1, 4, 5))
    with pytest.raises(UserError, match="product is"):
        map_product(start, words, "kronecker")  # type: ignore[arg-type]


def test_likeness_is_one_of_equal_maps_and_never_negative() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 16, 16, generator=draw)
    assert likeness(maps, maps * 7 + 2).tolist() == pytest.approx([1.0] * 3, abs=0.02)  # bytes are cut off, not rounded
    assert float(likeness(maps, 1 - maps).max()) == 0.0
    assert 0 <= float(likeness(maps[:, :8, :8], maps[:, 8:, 8:]).max()) < 0.6, "small grids are repeated"
    assert scaled(torch.ones(1, 4, 4)).abs().max() == 0


def test_the_published_average_is_neither_of_samples_nor_of_classes() -> None:
    """Specification, section 9: 333 phrases at 0.6, 46 at 1.4."""
    values, classes = [0.6] * 333 + [1.4] * 46, ["a"] * 333 + ["b"] * 46
    assert squared_counts_mean(values, classes) == pytest.approx(0.614980, abs=1e-6)
    assert float(micro_mean(np.array([values]))[0]) == pytest.approx(0.697098, abs=1e-6)
    assert float(macro_mean(np.array([values]), classes)[0]) == pytest.approx(1.0)
    # what it does wrong: a rare class that is perfect hardly counts, and with equal counts nothing shows
    assert squared_counts_mean([0.0] * 99 + [1.0], ["a"] * 99 + ["b"]) < 0.01 / 90
    assert squared_counts_mean([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"]) == pytest.approx(0.5)
    assert math.isnan(squared_counts_mean([math.nan], ["a"]))


def test_what_is_undefined_is_left_out_and_not_nothing() -> None:
    """Published: a failed fit is a CNR of 0, and NaN becomes 0."""
    values, classes = [1.0, math.nan, 1.0], ["a", "a", "b"]
    assert np.nan_to_num(values).mean() == pytest.approx(2 / 3)
    assert float(micro_mean(np.array([values]))[0]) == 1.0
    assert squared_counts_mean(values, classes) == 1.0


def planted_layers(seed: int, phrases: int, size: int = 24) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of four groups: the first finds the box, the second avoids it, two are noise; attention-like values below 0.02."""
    draw = torch.Generator().manual_seed(seed)
    maps, masks = [], []
    for number in range(phrases):
        mask = torch.zeros(size, size, dtype=torch.bool)
        row, column = 2 + 3 * (number % 5), 3 + 2 * (number % 7)
        mask[row : row + 6, column : column + 5] = True
        noise = torch.rand(4, size, size, generator=draw)
        noise[0] += mask
        noise[1] -= 0.9 * mask
        maps.append(0.005 * (noise + 1))
        masks.append(mask)
    return maps, masks


def test_moments_say_the_ratio_of_every_subset() -> None:
    maps, masks = planted_layers(0, 3)
    counts = (1, 5, 3, 2)
    for heat, mask in zip(maps, masks, strict=True):
        contrast = contrast_of(heat, mask)
        for size in (1, 2, 4):
            for chosen in itertools.combinations(range(4), size):
                weights = subset_weights(chosen, counts)
                mean = torch.einsum("g,ghw->hw", torch.tensor(weights), heat.double())
                expected = float(contrast_to_noise_ratio(mean[None], mask[None]))
                assert subset_cnr(contrast, weights) == pytest.approx(expected, rel=1e-9)
    empty = contrast_of(maps[0], torch.zeros(24, 24, dtype=torch.bool))
    assert math.isnan(subset_cnr(empty, subset_weights((0,), counts)))


def test_the_published_scaling_turns_the_sign_and_finds_the_worst_layer() -> None:
    """``a - a / (max - min)`` is ``a (1 - 1 / r)``: -99 times the map where its range is 0.01 (specification, section 9)."""
    line = torch.linspace(0.0, 0.01, 5, dtype=torch.float64)
    turned = line - line / (line.max() - line.min())
    torch.testing.assert_close(turned, -99 * line)
    maps, masks = planted_layers(1, 12)
    published = [heat - heat / (heat.amax(dim=(1, 2)) - heat.amin(dim=(1, 2)))[:, None, None] for heat in maps]
    counts = (1, 1, 1, 1)
    ours = [contrast_of(heat, mask) for heat, mask in zip(maps, masks, strict=True)]
    theirs = [contrast_of(heat, mask) for heat, mask in zip(published, masks, strict=True)]
    assert 1 in greedy_subset(theirs, counts), "the group that avoids the box"
    assert 0 not in greedy_subset(theirs, counts)
    assert greedy_subset(ours, counts)[0] == 0
    assert 1 not in greedy_subset(ours, counts)


def test_only_phrases_that_did_not_choose_say_what_layers_are_worth() -> None:
    """Sixteen groups of noise: chosen by few phrases they look good on these, and are worth nothing on others."""
    draw = torch.Generator().manual_seed(2)
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[4:9, 4:9] = True
    halves = [[contrast_of(torch.rand(16, 16, 16, generator=draw), mask) for _ in range(6)] for _ in range(2)]
    counts = [1] * 16
    inside, outside = [], []
    for own, other in (halves, halves[::-1]):
        weights = subset_weights(greedy_subset(own, counts), counts)
        inside.append(mean_cnr(own, weights))
        outside.append(mean_cnr(other, weights))
    assert min(inside) > 0.1, "the control: what a search tells of the phrases that it chose by"
    assert abs(sum(outside) / 2) < 0.5 * sum(inside) / 2
    with pytest.raises(UserError, match="no groups"):
        greedy_subset([], [])
    assert greedy_subset([], [1, 1]) == (0, 1), "nothing to tell by: all layers"
