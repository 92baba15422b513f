"""The mixture threshold against a plain EM and against scikit-learn's own results; IoU against loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import mean_iou, mixture_threshold


def formula_maps() -> np.ndarray:
    """Three 64 x 64 maps given by formulas: a blob in ripples, a skewed one, plateaus with a blob."""
    y, x = np.mgrid[:64, :64] / 64
    blob = np.exp(-((x - 0.3) ** 2 + (y - 0.6) ** 2) / 0.02)
    ripple = np.sin(37 * x * y + 9 * y) + np.cos(23 * x - 5 * y * y)
    return np.stack([blob + 0.1 * ripple, np.exp(ripple), np.floor(8 * x) * np.floor(4 * y) % 5 + 0.3 * blob])


def plain_threshold(image: np.ndarray) -> float:
    """scikit-learn's algorithm in its own terms (log-densities of both components, one map), from 2-means."""
    x = (image.ravel() - image.mean()) / image.std()
    upper = x > 0
    while True:
        moved = x > (x[upper].mean() + x[~upper].mean()) / 2
        if (moved == upper).all():
            break
        upper = moved
    share, bound, change = np.stack([~upper, upper]).astype(float), -np.inf, np.inf
    for _ in range(101):
        count = share.sum(axis=1)
        mean = (share * x).sum(axis=1) / count
        variance = (share * (x - mean[:, None]) ** 2).sum(axis=1) / count + 1e-6
        if abs(change) < 1e-3:
            break
        density = np.exp(-((x - mean[:, None]) ** 2) / 2 / variance[:, None]) / np.sqrt(2 * np.pi * variance[:, None])
        joint = density * count[:, None] / len(x)
        share = joint / joint.sum(axis=0)
        change, bound = np.log(joint.sum(axis=0)).mean() - bound, np.log(joint.sum(axis=0)).mean()
    return float(mean.mean() * image.std() + image.mean())


def test_threshold_is_that_of_a_plain_em() -> None:
    random = np.random.default_rng(0)
    maps = np.concatenate([formula_maps(), random.gamma(1.5, size=(4, 64, 64)), random.normal(size=(2, 64, 64))])
    expected = [plain_threshold(image) for image in maps]
    np.testing.assert_allclose(mixture_threshold(torch.from_numpy(maps)).numpy(), expected, rtol=1e-8)


def test_threshold_lies_where_scikit_learn_puts_it() -> None:
    # GaussianMixture(2, random_state=0..9) of scikit-learn 1.9.1 on the standardised maps: lowest and highest.
    published = [(0.274234087, 0.274761911), (2.148499979, 2.149625198), (1.159808232, 1.159808232)]
    for threshold, (low, high) in zip(mixture_threshold(torch.from_numpy(formula_maps())), published, strict=True):
        assert low - 1e-3 <= threshold.item() <= high + 1e-3


def test_threshold_follows_the_units_of_the_map() -> None:
    maps = torch.from_numpy(formula_maps())
    torch.testing.assert_close(
        mixture_threshold(maps * 1e-6 - 3), mixture_threshold(maps) * 1e-6 - 3, rtol=0, atol=1e-12
    )


def test_threshold_of_a_map_does_not_depend_on_its_neighbours() -> None:
    maps = torch.from_numpy(formula_maps())
    alone = torch.cat([mixture_threshold(image[None]) for image in maps])
    torch.testing.assert_close(mixture_threshold(maps), alone, rtol=1e-9, atol=0)


def test_threshold_separates_two_true_gaussians() -> None:
    random = np.random.default_rng(1)
    image = np.where(random.random((64, 64)) < 0.2, random.normal(9, 1, (64, 64)), random.normal(1, 0.5, (64, 64)))
    assert mixture_threshold(torch.from_numpy(image)[None]).item() == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_threshold_of_a_map_of_two_values_is_between_them(share: float) -> None:
    image = torch.zeros(4096)
    image[: round(4096 * share)] = 3.0
    assert mixture_threshold(image.reshape(1, 64, 64)).item() == pytest.approx(1.5, abs=1e-3)


def rectangles(seed: int, n: int = 10) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.random((n, 8, 10)) < random.random((n, 1, 1)))


def plain_mean_iou(image: np.ndarray, mask: np.ndarray, threshold: float) -> float:
    """Section 6 of the specification, pixel by pixel."""
    binary = (image > threshold).astype(float)
    smooth = binary.copy()
    for i in range(1, len(image) - 1):
        for j in range(1, len(image[0]) - 1):
            smooth[i, j] = binary[i - 1 : i + 2, j - 1 : j + 2].mean() >= 0.5
    fore = smooth > 0
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in [(fore, mask), (~fore, ~mask)]]))


@pytest.mark.parametrize("threshold", [None, 0.2, "each"])
def test_mean_iou_by_loops(threshold: float | str | None) -> None:
    random = np.random.default_rng(2)
    masks = rectangles(3)
    maps = torch.from_numpy(random.normal(size=masks.shape)) + masks.double()
    given = torch.linspace(-0.5, 1.0, len(maps)).double() if isinstance(threshold, str) else threshold
    cuts = mixture_threshold(maps) if given is None else torch.as_tensor(given).double().expand(len(maps))
    expected = [plain_mean_iou(m, g, c) for m, g, c in zip(maps.numpy(), masks.numpy(), cuts.tolist(), strict=True)]
    np.testing.assert_allclose(mean_iou(maps, masks, given).numpy(), expected, rtol=1e-12)


def test_mean_iou_leaves_the_border_alone() -> None:
    masks = torch.zeros(1, 5, 5, dtype=torch.bool)
    masks[0, 0, 0] = masks[0, 2, 2] = True  # the smoothing removes the inner pixel only
    assert mean_iou(masks.float(), masks, 0.5).item() == pytest.approx((1 / 2 + 23 / 24) / 2)


def test_mean_iou_of_a_map_too_small_to_smooth() -> None:
    masks = torch.tensor([[[True, False, False, True]]])
    assert mean_iou(masks.float(), masks, 0.5).item() == 1


def test_a_threshold_of_the_wrong_length_is_told() -> None:
    masks = rectangles(4)
    with pytest.raises(UserError, match="threshold"):
        mean_iou(masks.float(), masks, torch.zeros(3))
