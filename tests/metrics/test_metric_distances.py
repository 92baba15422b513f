"""Frechet and kernel distance against scipy and plain loops, and the metric that gathers their features."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics import FrechetFeatureDistance
from meddiff.metrics.functional import feature_statistics, frechet_distance, kernel_distance, kid


def features(seed: int, n: int, width: int = 12, rank: int | None = None, shift: float = 0.0) -> Tensor:
    """Correlated features of the given rank."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(rank or width, width))
    return torch.from_numpy(random.normal(size=(n, rank or width)) @ mixing + shift)


def scipy_frechet(x: Tensor, y: Tensor) -> float:
    """As pytorch-fid computes it."""
    a, b = x.numpy(), y.numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))


@pytest.mark.parametrize(("n", "m", "width"), [(200, 150, 12), (900, 1000, 64), (40, 50, 1)])
def test_frechet_agrees_with_scipy(n: int, m: int, width: int) -> None:
    x, y = features(0, n, width), features(1, m, width, shift=0.3)
    expected = scipy_frechet(x, y) if width > 1 else (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    assert frechet_distance(feature_statistics(x), feature_statistics(y)) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_of_commuting_covariances_has_a_closed_form() -> None:
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0])
    a, b = torch.tensor([4.0, 1.0, 0.0, 0.0, 9.0, 2.0]).double(), torch.tensor([1.0, 0.0, 0.0, 5.0, 9.0, 3.0]).double()
    base = feature_statistics(features(3, 5, 6))
    one = type(base)(10, base.mean, turn @ a.diag() @ turn.T)
    two = type(base)(10, base.mean + 1.0, turn @ b.diag() @ turn.T)
    expected = 6.0 + (a.sqrt() - b.sqrt()).square().sum().item()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 5, 200])
def test_frechet_of_a_set_with_itself_is_zero_at_any_rank(rank: int) -> None:
    x = features(4, 50, 200, rank=rank) * 100
    same, shuffled = feature_statistics(x), feature_statistics(x.flip(0))
    assert 0 <= frechet_distance(same, same) <= 1e-11 * same.covariance.trace().item()
    assert 0 <= frechet_distance(same, shuffled) <= 1e-11 * same.covariance.trace().item()


def test_frechet_of_few_samples_is_finite_and_right() -> None:
    x, y = features(5, 8, 100), features(6, 9, 100)  # ranks 7 and 8 of 100: scipy's sqrtm is lost here
    centred = [(z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (x, y)]
    overlap = np.linalg.norm((centred[0] @ centred[1].T).numpy(), "nuc")  # in the small space of the samples
    expected = (x.mean(0) - y.mean(0)).square().sum() + sum(c.square().sum() for c in centred) - 2 * overlap
    assert frechet_distance(feature_statistics(x), feature_statistics(y)) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_of_constant_features_is_the_distance_of_the_means() -> None:
    a, b = feature_statistics(torch.zeros(5, 3)), feature_statistics(torch.full((4, 3), 2.0))
    assert frechet_distance(a, b) == 12.0  # exactly: small whole numbers


def test_frechet_agrees_with_scipy_on_a_spectrum_like_that_of_a_network() -> None:
    random = np.random.default_rng(20)
    turn = np.linalg.qr(random.normal(size=(48, 48)))[0]
    shape = np.logspace(0, -4, 48)[:, None] * turn  # variances fall by eight orders of magnitude
    x, y = (torch.from_numpy(random.normal(size=(n, 48)) @ shape + 3.0) for n in (110, 400))
    found = frechet_distance(feature_statistics(x), feature_statistics(y))
    assert found == pytest.approx(scipy_frechet(x, y), rel=1e-6)


def test_distances_agree_with_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    x, y = features(24, 120, 32), features(25, 120, 32, shift=0.5)
    expected = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
    found = frechet_distance(feature_statistics(x), feature_statistics(y))
    assert found == pytest.approx(expected[KEY_METRIC_FID], rel=1e-6)
    # one subset that is the whole set: its draws then only shuffle
    whole = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=120, verbose=False)
    assert kernel_distance(x, y) == pytest.approx(whole[KEY_METRIC_KID_MEAN], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_statistics_of_coarse_features_are_computed_in_double(dtype: torch.dtype) -> None:
    x, y = (features(seed, 90, shift=50.0).to(dtype) for seed in (21, 22))
    assert feature_statistics(x).covariance.dtype == torch.float64
    found = frechet_distance(feature_statistics(x), feature_statistics(y))
    assert found == pytest.approx(scipy_frechet(x.double(), y.double()), rel=1e-6)


def test_frechet_of_few_samples_with_themselves_is_nothing_in_absolute_terms() -> None:
    x = features(23, 40, 256)
    assert 0 <= frechet_distance(feature_statistics(x), feature_statistics(x.clone())) < 1e-6


def test_statistics_are_numpys() -> None:
    x = features(7, 90) * 5 + 1000
    whole = feature_statistics(x)
    np.testing.assert_allclose(whole.covariance.numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-9)
    np.testing.assert_allclose(whole.mean.numpy(), x.numpy().mean(axis=0), rtol=1e-12)
    assert whole.n == 90


@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("chunk", [1024, 7])
def test_kernel_distance_by_loops(monkeypatch: pytest.MonkeyPatch, chunk: int, degree: int) -> None:
    monkeypatch.setattr(kid, "CHUNK", chunk)
    real, fake = features(8, 15, 4), features(9, 22, 4, shift=0.2)
    x, y = real.tolist(), fake.tolist()

    def kernel(a: list[float], b: list[float]) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 4 + 1) ** degree

    within = [
        sum(kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    expected = sum(within) - 2 * sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kernel_distance(real, fake, degree) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    real, fake = features(10, 60), features(11, 60)
    assert kernel_distance(real, fake) == pytest.approx(poly_mmd(real, fake).item(), rel=1e-9)


def test_kernel_distance_has_no_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [
        kernel_distance(torch.randn(6, 3, generator=generator), torch.randn(6, 3, generator=generator))
        for _ in range(1000)
    ]
    mean, error = np.mean(values), np.std(values) / math.sqrt(len(values))
    assert abs(mean) < 4 * error
    assert min(values) < 0, "an unbiased estimate of zero must fall on both sides"


def test_bad_features_are_told() -> None:
    x = features(12, 10)
    with pytest.raises(UserError, match="2 or more"):
        feature_statistics(x[:1])
    with pytest.raises(UserError, match="2 or more"):
        kernel_distance(x, x[0])
    with pytest.raises(UserError, match="not finite"):
        feature_statistics(x.log())
    with pytest.raises(UserError, match="same extractor"):
        kernel_distance(x, x[:, 1:])
    with pytest.raises(UserError, match="same extractor"):
        frechet_distance(feature_statistics(x), feature_statistics(x[:, 1:]))
    with pytest.raises(UserError, match="degree"):
        kernel_distance(x, x, degree=0)
    metric = FrechetFeatureDistance()
    with pytest.raises(UserError, match=r"\(N, D\)"):
        metric.update(x[0], real=True)
    metric.update(x, real=True)
    with pytest.raises(UserError, match="one extractor"):
        metric.update(x[:, 1:], real=False)


def test_metric_over_batches_is_the_function_over_all() -> None:
    real, fake = features(13, 40).float(), features(14, 30).float()
    metric = FrechetFeatureDistance()
    for part in real.split(7):
        metric.update(part, real=True)
    for part in fake.split(11):
        metric.update(part.half().float(), real=False)
    fake = fake.half().float()
    scores = metric.compute()
    expected = frechet_distance(feature_statistics(real), feature_statistics(fake))
    assert scores["frechet"] == pytest.approx(expected, rel=1e-9)
    assert scores["kid"] == pytest.approx(kernel_distance(real, fake), rel=1e-9)
    assert (scores["n_real"], scores["n_fake"]) == (40.0, 30.0)
    metric.reset()
    assert metric.compute()["n_real"] == 0


def test_one_reference_meets_many_sets() -> None:
    real, *sets = (features(seed, n).float() for seed, n in ((16, 40), (17, 30), (18, 50)))
    metric = FrechetFeatureDistance(keep_real=True)
    metric.update(real, real=True)
    for fake in sets:
        metric.reset()
        metric.update(fake, real=False)
        scores = metric.compute()
        assert scores["frechet"] == pytest.approx(
            frechet_distance(feature_statistics(real), feature_statistics(fake)), rel=1e-9
        )
        assert scores["kid"] == pytest.approx(kernel_distance(real, fake), rel=1e-9)
        assert (scores["n_real"], scores["n_fake"]) == (40.0, float(len(fake)))
    metric.update(sets[0], real=True)
    more = frechet_distance(feature_statistics(torch.cat([real, sets[0]])), feature_statistics(sets[1]))
    assert metric.compute()["frechet"] == pytest.approx(more, rel=1e-9), "what is kept must follow the reference"


@pytest.mark.parametrize("fake", [torch.zeros(0, 12), torch.zeros(1, 12), torch.full((5, 12), float("nan"))])
def test_metric_without_a_result_is_nan_and_does_not_end_the_run(fake: Tensor) -> None:
    metric = FrechetFeatureDistance()
    metric.update(features(15, 9), real=True)
    metric.update(fake, real=False)
    scores = metric.compute()
    assert math.isnan(scores["frechet"])
    assert math.isnan(scores["kid"])
    assert (scores["n_real"], scores["n_fake"]) == (9.0, float(len(fake)))
