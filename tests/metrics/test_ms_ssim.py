"""MS-SSIM against torchmetrics and against scipy, and what it says of images of one prompt and of many."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from numpy.typing import NDArray
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics import PairwiseSimilarity
from meddiff.metrics.functional.ms_ssim import (
    BETAS,
    multiscale_similarity,
    pairwise_similarity,
    scale_weights,
    scales_for,
)


def smooth_images(seed: int, n: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Blobs, values 0..255."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n, channels, height, width))
    blurred = scipy.ndimage.gaussian_filter(noise, (0, 0, 3, 3))
    low, high = blurred.min(), blurred.max()
    return torch.from_numpy((blurred - low) / (high - low) * 255)


def close_to(images: Tensor, seed: int, noise: float = 15.0) -> Tensor:
    return (images + noise * torch.from_numpy(np.random.default_rng(seed).normal(size=images.shape))).clamp(0, 255)


@pytest.mark.parametrize("size", [(176, 180), (128, 128), (65, 97), (31, 40), (15, 15)])
@pytest.mark.parametrize("data_range", [255.0, None])
def test_agrees_with_torchmetrics(size: tuple[int, int], data_range: float | None) -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    a = smooth_images(0, 3, *size)
    b = torch.cat([close_to(a[:1], 1), close_to(a[1:2], 2, 60.0), smooth_images(3, 1, *size)])
    weights = scale_weights(scales_for(*size))
    expected = [
        reference(a[i : i + 1], b[i : i + 1], sigma=1.5, kernel_size=11, data_range=data_range, betas=weights).item()
        for i in range(3)
    ]
    assert multiscale_similarity(a, b, data_range).tolist() == pytest.approx(expected, abs=1e-6)


def scipy_ms_ssim(a: NDArray[np.float64], b: NDArray[np.float64], span: float) -> float:
    """One channel, five scales, from the formula of the paper, with scipy's Gaussian (radius 5, borders mirrored)."""

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return scipy.ndimage.gaussian_filter(x, 1.5, mode="mirror", truncate=5 / 1.5)

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    result = 1.0
    for scale, beta in enumerate(BETAS):
        mu, nu = blur(a), blur(b)
        structure = (2 * (blur(a * b) - mu * nu) + c2) / (blur(a * a) - mu**2 + blur(b * b) - nu**2 + c2)
        if scale == len(BETAS) - 1:
            result *= ((2 * mu * nu + c1) / (mu**2 + nu**2 + c1) * structure).mean() ** beta
        else:
            result *= structure[5:-5, 5:-5].mean() ** beta
            a, b = (x.reshape(len(x) // 2, 2, -1, 2).mean(axis=(1, 3)) for x in (a, b))
    return float(result)


def test_agrees_with_the_formula_in_scipy() -> None:
    a = smooth_images(4, 2, 192, 192, channels=1)
    b = close_to(a, 5, 30.0)
    expected = [scipy_ms_ssim(x[0], y[0], 255.0) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert multiscale_similarity(a, b).tolist() == pytest.approx(expected, rel=1e-9)
    grey = multiscale_similarity(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1))
    assert grey.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("data_range", [255.0, None])
def test_identical_images_score_one(data_range: float | None) -> None:
    images = smooth_images(6, 2, 64, 64).round().byte()
    assert multiscale_similarity(images, images, data_range).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)


def test_a_pair_scores_the_same_alone_swapped_and_in_a_batch() -> None:
    a, b = smooth_images(7, 20, 128, 128), smooth_images(8, 20, 128, 128)
    a[3] *= 0.1  # a range of its own
    for data_range in (255.0, None):
        together = multiscale_similarity(a, b, data_range)
        alone = torch.cat([multiscale_similarity(b[i : i + 1], a[i : i + 1], data_range) for i in range(20)])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


def test_images_without_contrast_are_equal_under_a_given_range_and_undefined_without() -> None:
    flat = torch.full((1, 3, 32, 32), 9.0)
    assert multiscale_similarity(flat, flat).item() == pytest.approx(1.0)
    assert math.isnan(multiscale_similarity(flat, flat, None).item())
    metric = PairwiseSimilarity(data_range=None)
    metric.update(flat.expand(2, -1, -1, -1))
    scores = metric.compute()
    assert (scores["pairs"], scores["undefined"]) == (0.0, 1.0)
    assert math.isnan(scores["mean"])


def test_small_images_have_fewer_scales_with_the_same_total_weight() -> None:
    assert [scales_for(side, side) for side in (512, 176, 128, 64, 11, 10)] == [5, 5, 4, 3, 2, 0]
    assert scales_for(512, 128) == 4
    for scales in (1, 2, 3, 4, 5):
        weights = scale_weights(scales)
        assert len(weights) == scales
        assert sum(weights) == pytest.approx(sum(BETAS))
        assert weights[0] / weights[-1] == pytest.approx(BETAS[0] / BETAS[scales - 1])


def prompt_images(prompt: int, n: int) -> Tensor:
    """What a model draws that listens: the same scene for one prompt, in variations."""
    return close_to(smooth_images(100 + prompt, 1, 64, 64, channels=1).expand(n, -1, -1, -1), prompt, 40.0)


def test_pairs_of_mixed_prompts_are_less_alike_than_pairs_of_one() -> None:
    groups = [prompt_images(prompt, 4) for prompt in range(6)]
    same, mixed = PairwiseSimilarity(), PairwiseSimilarity()
    for group in groups:
        same.update(group)
    for k in range(4):
        mixed.update(torch.stack([group[k] for group in groups]))
    assert same.compute()["mean"] > mixed.compute()["mean"] + 0.2


def test_the_metric_averages_all_pairs_of_all_groups() -> None:
    groups = [smooth_images(9, 4, 64, 64), smooth_images(10, 3, 64, 64), smooth_images(11, 2, 64, 64)]
    metric = PairwiseSimilarity()
    for group in groups:
        metric.update(group)
    values = [
        multiscale_similarity(group[i : i + 1], group[j : j + 1]).item()
        for group in groups
        for i in range(len(group))
        for j in range(i + 1, len(group))
    ]
    scores = metric.compute()
    assert metric.pairs() == pytest.approx(values, rel=1e-9)
    assert pairwise_similarity(groups[0]).tolist() == pytest.approx(values[:6], rel=1e-9)
    assert scores["mean"] == pytest.approx(np.mean(values))
    assert scores["std"] == pytest.approx(np.std(values, ddof=1))
    assert (scores["pairs"], scores["undefined"], scores["scales"]) == (10.0, 0.0, 3.0)


def test_images_that_do_not_fit_are_told() -> None:
    images = smooth_images(12, 2, 64, 64)
    with pytest.raises(UserError, match="twice"):
        multiscale_similarity(images, images[:1])
    with pytest.raises(UserError, match="smaller than the window"):
        multiscale_similarity(images[..., :10], images[..., :10])
    with pytest.raises(UserError, match="2 or more"):
        pairwise_similarity(images[:1])
    metric = PairwiseSimilarity()
    metric.update(images)
    with pytest.raises(UserError, match="one size"):
        metric.update(images[..., :20, :20])
