"""CNR, pixel AUROC and Top-1 against definitions written out, and the properties they must have."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import contrast_to_noise_ratio, mean_iou, pixel_auroc, pointing_game

METRICS: list[Callable[..., Tensor]] = [contrast_to_noise_ratio, pixel_auroc, pointing_game, mean_iou]


def case(seed: int, n: int = 12, height: int = 9, width: int = 7, levels: int = 0) -> tuple[Tensor, Tensor]:
    """Random maps (rounded to a few levels if asked: heavy ties) and rectangles."""
    random = np.random.default_rng(seed)
    maps = random.normal(size=(n, height, width)).astype(np.float32)
    if levels:
        maps = np.floor(random.random(size=maps.shape) * levels).astype(np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    for mask in masks:
        top, left = random.integers(0, height - 3), random.integers(0, width - 3)
        mask[top : top + random.integers(2, 4), left : left + random.integers(2, 4)] = True
    return torch.from_numpy(maps), torch.from_numpy(masks)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_cnr_is_the_published_formula(absolute: bool, unbiased: bool) -> None:
    maps, masks = case(0)
    scores = contrast_to_noise_ratio(maps, masks, absolute=absolute, unbiased=unbiased)
    for score, image, mask in zip(scores, maps.double().numpy(), masks.numpy(), strict=True):
        inside, outside, ddof = image[mask], image[~mask], int(unbiased)
        expected = (inside.mean() - outside.mean()) / math.sqrt(inside.var(ddof=ddof) + outside.var(ddof=ddof))
        assert score.item() == pytest.approx(abs(expected) if absolute else expected, rel=1e-12)
    assert absolute == bool((scores > 0).all()), "some of these maps have a negative ratio"


def test_cnr_keeps_its_digits_on_a_large_offset() -> None:
    maps, masks = case(1)
    maps = (maps * 64).round().double() / 64  # so that adding 2**20 in float64 loses nothing
    torch.testing.assert_close(
        contrast_to_noise_ratio(maps + 2.0**20, masks), contrast_to_noise_ratio(maps, masks), rtol=1e-9, atol=0
    )


def test_cnr_of_two_plateaus_is_undefined_and_not_huge() -> None:
    masks = case(2)[1]
    assert contrast_to_noise_ratio(0.1 + 0.2 * masks.double(), masks).isnan().all()


def test_cnr_with_one_flat_side_is_defined() -> None:
    maps, masks = case(2)
    flat_outside = contrast_to_noise_ratio(maps.masked_fill(~masks, 0.1), masks)
    inside = maps[0][masks[0]].double()
    assert flat_outside[0].item() == pytest.approx((inside.mean() - 0.1).item() / inside.std().item(), rel=1e-6)


def test_cnr_of_a_single_pixel_needs_the_biased_variance() -> None:
    maps, masks = case(3)[0][:1], torch.zeros(1, 9, 7, dtype=torch.bool)
    masks[0, 4, 4] = True
    outside = maps[~masks].double().numpy()
    assert contrast_to_noise_ratio(maps, masks).isnan().all()
    expected = (maps[0, 4, 4].item() - outside.mean()) / outside.std()
    assert contrast_to_noise_ratio(maps, masks, unbiased=False).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("levels", [0, 2, 3, 8])
def test_auroc_counts_pairs(levels: int) -> None:
    maps, masks = case(4, levels=levels)
    scores = pixel_auroc(maps, masks)
    for score, image, mask in zip(scores, maps.numpy(), masks.numpy(), strict=True):
        difference = image[mask][:, None] - image[~mask][None, :]
        assert score.item() == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean(), abs=1e-12)


def test_auroc_agrees_with_scipy_on_a_large_map() -> None:
    from scipy.stats import mannwhitneyu

    maps, masks = case(5, n=2, height=256, width=256, levels=40)
    masks[1, 100:200, 3:90] = True
    for score, image, mask in zip(pixel_auroc(maps, masks), maps.double().numpy(), masks.numpy(), strict=True):
        # In float64: scipy sums the ranks in the type of the values.
        wins = mannwhitneyu(image[mask], image[~mask], method="asymptotic").statistic
        assert score.item() == pytest.approx(wins / (mask.sum() * (~mask).sum()), abs=1e-9)


def test_auroc_takes_minus_zero_for_zero() -> None:
    masks = torch.tensor([[[True, False, False]]])
    assert pixel_auroc(torch.tensor([[[-0.0, 0.0, 1.0]]]), masks).item() == 0.25


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_pointing_game_by_loops(tolerance: int) -> None:
    maps, masks = case(6, n=40, levels=6)
    scores = pointing_game(maps, masks, tolerance=tolerance)
    for score, image, mask in zip(scores, maps.numpy(), masks.numpy(), strict=True):
        row, column = np.unravel_index(image.argmax(), image.shape)
        near = [math.hypot(i - row, j - column) <= tolerance for i, j in np.argwhere(mask)]
        assert score.item() == float(any(near))
    assert 0 < scores.mean() < 1, "the cases should hold hits and misses"


def test_perfect_and_inverted_maps() -> None:
    ripple = case(7)[0] * 0.01
    masks = case(7)[1]
    good, bad = masks + ripple, ripple - masks.float()
    assert (pixel_auroc(good, masks) == 1).all()
    assert (pixel_auroc(bad, masks) == 0).all()
    assert (pointing_game(good, masks) == 1).all()
    assert (pointing_game(bad, masks) == 0).all()
    assert (contrast_to_noise_ratio(good, masks) > 10).all()
    assert (contrast_to_noise_ratio(bad, masks) < -10).all()


@pytest.mark.parametrize("metric", METRICS)
def test_affine_change_of_the_map_changes_nothing(metric: Callable[..., Tensor]) -> None:
    maps, masks = case(8)
    maps = maps.double()
    torch.testing.assert_close(metric(maps * 1e-5 + 7.0, masks), metric(maps, masks), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "constant"])
def test_what_is_undefined_is_nan_and_alone(metric: Callable[..., Tensor], bad: float | str) -> None:
    maps, masks = case(9)
    before = metric(maps, masks)
    if isinstance(bad, str):
        maps[3] = 0.1
    else:
        maps[3, 2, 2] = bad
    after = metric(maps, masks)
    assert after[3].isnan()
    others = torch.arange(len(maps)) != 3
    assert after[others].isfinite().all()
    torch.testing.assert_close(after[others], before[others], rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", [contrast_to_noise_ratio, pixel_auroc])
@pytest.mark.parametrize("value", [True, False])
def test_a_mask_with_one_side_is_undefined(metric: Callable[..., Tensor], value: bool) -> None:
    maps, masks = case(10)
    masks[0] = value
    assert metric(maps, masks).isnan().tolist() == [True] + [False] * 11


def test_pointing_at_nothing_is_undefined() -> None:
    maps, masks = case(10)
    masks[0], masks[1] = False, True
    scores = pointing_game(maps, masks)
    assert scores[0].isnan()
    assert scores[1] == 1


@pytest.mark.parametrize("metric", METRICS)
def test_no_samples_give_no_scores(metric: Callable[..., Tensor]) -> None:
    assert metric(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_maps_are_scored_in_double(metric: Callable[..., Tensor]) -> None:
    maps, masks = case(11)
    scores = metric(maps.bfloat16(), masks)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, metric(maps.bfloat16().double(), masks), rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input_is_told(metric: Callable[..., Tensor]) -> None:
    maps, masks = case(12)
    with pytest.raises(UserError, match="boolean"):
        metric(maps, masks.float())
    with pytest.raises(UserError, match="resize"):
        metric(maps, masks[:, 1:])
    with pytest.raises(UserError, match=r"\(N, H, W\)"):
        metric(maps[0], masks[0])
    with pytest.raises(UserError, match="tolerance"):
        pointing_game(maps, masks, tolerance=-1)
