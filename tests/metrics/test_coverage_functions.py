"""Coverage, retrieval and diversity: the specification's numbers, brute force, and what published code gets wrong."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import feature_statistics, frechet_distance, kernel_distance
from meddiff.metrics.functional.class_kernel import class_kernel_distance
from meddiff.metrics.functional.image_retrieval import occupancy, reached, retrieved
from meddiff.metrics.functional.neighbours import nearest
from meddiff.metrics.functional.prdc import coverage_ceiling, prdc
from meddiff.metrics.functional.vendi import vendi_score


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def normal(n: int, d: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# ---- nearest neighbours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_neighbours_are_those_of_brute_force_for_any_block(chunk: int) -> None:
    queries, points = normal(23, 3), normal(31, 3, seed=1)
    points[9] = points[4]  # an exact copy: the first of equals is taken
    found, places = nearest(queries, points, k=4, chunk=chunk)
    apart = np.linalg.norm(queries.double().numpy()[:, None] - points.double().numpy(), axis=2)
    assert places.tolist() == np.argsort(apart, axis=1, kind="stable")[:, :4].tolist()
    assert found.numpy() == pytest.approx(np.sort(apart, axis=1)[:, :4], rel=1e-12)
    own, others = nearest(points, points, k=1, itself=True, chunk=chunk)
    assert (others[4, 0], others[9, 0], own[4, 0], own[9, 0]) == (9, 4, 0, 0)


def test_a_copy_is_at_distance_zero_where_products_in_float32_say_otherwise() -> None:
    features = normal(50, 64) + 100  # far from the origin, as pooled features are
    products = (features @ features.T).neg().mul(2) + 2 * features.square().sum(1).mean()
    squared = features.square().sum(1)[:, None] + features.square().sum(1) - 2 * features @ features.T
    assert products.shape == squared.shape
    assert squared.diagonal().abs().max() > 1e-3, "the published way"
    assert nearest(features, features)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("first", "second", "k", "sentence"),
    [
        (torch.zeros(3), torch.zeros(3, 1), 1, "shape"),
        (torch.zeros(3, 1), torch.zeros(3, 2), 1, "same extractor"),
        (torch.full((3, 1), torch.nan), torch.zeros(3, 1), 1, "not finite"),
        (torch.zeros(3, 1), torch.zeros(3, 1), 4, "4 neighbours"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(first: Tensor, second: Tensor, k: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        nearest(first, second, k)


# ---- precision, recall, density, coverage -----------------------------------------------------------------------------

REAL, FAKE = column(0, 1, 2, 3, 10), column(0.5, 2.5, 4.2, 20)


def brute_prdc(real: np.ndarray, fake: np.ndarray, k: int, strict: bool = True) -> list[float]:
    def radius(points: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(points[i] - other)) for j, other in enumerate(points) if j != i)[k - 1]

    def within(a: np.ndarray, b: np.ndarray, r: float) -> bool:
        apart = float(np.linalg.norm(a - b))
        return apart < r if strict else apart <= r

    r, s = ([radius(points, i) for i in range(len(points))] for points in (real, fake))
    inside = [[within(x, y, r[i]) for y in fake] for i, x in enumerate(real)]
    reached_ = [any(within(x, y, s[j]) for j, y in enumerate(fake)) for x in real]
    return [
        float(np.mean(np.any(inside, axis=0))),
        float(np.mean(reached_)),
        float(np.sum(inside)) / (k * len(fake)),
        float(np.mean(np.any(inside, axis=1))),
    ]


def test_prdc_is_that_of_the_specification() -> None:
    assert prdc(REAL, FAKE, k=1) == pytest.approx((0.75, 1, 1.25, 1))
    assert prdc(REAL, FAKE, k=2) == pytest.approx((0.75, 1, 0.875, 1))
    ties = column(0, 1, 2, 3), column(1, 2, 4)
    assert prdc(*ties, k=1) == pytest.approx((0.666667, 0.75, 0.666667, 0.5), abs=1e-6)
    with_equals = brute_prdc(ties[0].numpy(), ties[1].numpy(), 1, strict=False)
    assert with_equals == pytest.approx([1, 1, 2.333333, 1], abs=1e-6), "what <= would say"
    assert coverage_ceiling(500, 500, 5) == pytest.approx(0.96922, abs=5e-6)


@pytest.mark.parametrize("chunk", [1, 6, 1024])
def test_prdc_is_that_of_brute_force_for_any_block(chunk: int) -> None:
    real, fake = normal(37, 3), normal(29, 3, seed=1) * 0.7 + 0.3
    assert prdc(real, fake, 5, chunk) == pytest.approx(brute_prdc(real.double().numpy(), fake.double().numpy(), 5))


def test_planted_sets_have_the_coverage_they_must() -> None:
    real, other = normal(500), normal(500, seed=1)
    same = prdc(real, other)
    assert same.precision == pytest.approx(0.94, abs=0.04)
    assert same.recall == pytest.approx(0.94, abs=0.04)
    assert same.density == pytest.approx(1, abs=0.1)
    assert same.coverage == pytest.approx(coverage_ceiling(500, 500), abs=0.03)
    assert prdc(real, real) == pytest.approx((1, 1, prdc(real, real).density, 1)), (
        "copies of the reference look perfect"
    )
    repeated = prdc(real, real[:1].expand(500, -1))
    assert (repeated.precision, repeated.recall) == (1, 0)
    assert repeated.coverage < 0.05
    ten = prdc(real, other[:10].repeat(50, 1))
    assert ten.recall < 0.05, "a generator that collapsed to ten images"
    assert ten.coverage < 0.3
    with pytest.raises(UserError, match="6 or more"):
        prdc(real[:5], other)


# ---- image retrieval score ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ((100, 100, 50), (62, 55, 73)),
        ((100, 50, 40), (100, 69, 100)),
        ((1000, 200, 150), (328, 273, 407)),
        ((100, 100, 63), (98, 82, 100)),
        ((20, 10, 7), (12, 7, 20)),
        ((100, 50, 50), (100, 100, 100)),
        ((100, 300, 99), (100, 100, 100)),  # the published search does not end
    ],
)
def test_images_reached_are_those_of_the_specification(
    case: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert reached(*case) == expected


def test_the_distribution_is_that_of_all_draws() -> None:
    draws, images = 5, 4
    counts = np.bincount([len(set(one)) for one in itertools.product(range(images), repeat=draws)], minlength=5)
    assert occupancy(draws, images, 4) == pytest.approx(counts / images**draws, rel=1e-12)
    mean = float((np.arange(101) * occupancy(100, 100, 100)).sum())
    assert mean == pytest.approx(63.3968, abs=5e-5)


def test_the_share_that_is_read_is_the_ratio_to_held_out_images() -> None:
    assert reached(100, 50, 30).images / reached(100, 50, 40).images == pytest.approx(0.43)
    assert int(29 / 100 * 100) == 28, "the published way back from a share loses an image"
    train = normal(400)
    assert retrieved(train, train[:29].repeat(2, 1)) == 29
    ten = reached(400, 200, retrieved(train, normal(10, seed=2).repeat(20, 1)))
    assert 7 <= ten.images <= 10
    assert ten.high <= 10
    held_out = reached(400, 200, retrieved(train, normal(200, seed=3)))
    assert held_out.low > 60
    with pytest.raises(UserError, match="cannot be"):
        reached(10, 5, 6)


# ---- Vendi score --------------------------------------------------------------------------------------------------------


def test_vendi_is_that_of_the_specification_and_centred_where_it_must_be() -> None:
    assert vendi_score(torch.ones(5, 3)) == pytest.approx(1)
    assert vendi_score(torch.eye(4)) == pytest.approx(4)
    assert vendi_score(torch.eye(2).repeat(2, 1)) == pytest.approx(2)
    assert vendi_score(torch.tensor([[1.0, 0.0], [1.0, 1.0]])) == pytest.approx(1.516640, abs=5e-6)
    wide = normal(6, 40)
    assert vendi_score(wide) == pytest.approx(vendi_score(torch.cat([wide, torch.zeros(6, 1)], 1)))
    parallel = normal(300) * 0.1 + 5
    assert vendi_score(parallel) < 1.1, "uncentred, every set of such features has a score near 1"
    assert vendi_score(parallel, parallel.mean(0)) > 7
    assert math.isnan(vendi_score(torch.zeros(3, 2)))


# ---- distances ------------------------------------------------------------------------------------------------------------

X = torch.tensor([[0.0, 0], [2, 0], [0, 2], [2, 2]])
Y = torch.tensor([[1.0, 1], [3, 1], [1, 5], [3, 5]])


def test_distances_are_those_of_the_specification() -> None:
    assert frechet_distance(feature_statistics(X), feature_statistics(Y)) == pytest.approx(19 / 3, abs=1e-6)
    assert kernel_distance(X, Y) == pytest.approx(486.833333, abs=1e-6)
    assert kernel_distance(X, X) == pytest.approx(-17.666667, abs=1e-6)


@pytest.mark.parametrize(("n", "published"), [(200, 896.7), (500, 565.1)])
def test_two_samples_of_one_population_are_as_far_apart_as_the_specification_says(n: int, published: float) -> None:
    """Which is why distances of different N are no comparison."""
    x, y = (torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 768))) for seed in (0, 1))
    assert frechet_distance(feature_statistics(x), feature_statistics(y)) == pytest.approx(published, rel=0.01)


def test_subsets_of_all_images_are_one_number_and_distances_of_shards_are_no_distance() -> None:
    real, fake = normal(60), normal(60, seed=1) + 0.5

    def subset(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> float:
        """As published: a subset drawn without replacement, here of as many images as there are."""
        x, y = x[random.permutation(len(x))], y[random.permutation(len(y))]
        own = [((z @ z.T / z.shape[1] + 1) ** 3 * (1 - np.eye(len(z)))).sum() / len(z) / (len(z) - 1) for z in (x, y)]
        return float(sum(own) - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean())

    random = np.random.default_rng(0)
    subsets = [subset(real.double().numpy(), fake.double().numpy(), random) for _ in range(5)]
    assert np.ptp(subsets) < 1e-9, "'subsets' of all images have no spread: five times the work for one number"
    assert kernel_distance(real, fake) == pytest.approx(subsets[0], rel=1e-9)
    same, other = normal(400, 16, seed=2), normal(400, 16, seed=3)
    whole = frechet_distance(feature_statistics(same), feature_statistics(other))
    parts = [
        frechet_distance(feature_statistics(a), feature_statistics(b))
        for a, b in zip(same.split(100), other.split(100), strict=True)
    ]
    assert np.mean(parts) > 2 * whole, "the mean of distances of shards is biased upwards"


def test_classes_are_ranked_by_distance_and_not_by_how_frequent_they_are() -> None:
    sizes = {"often": 1500, "rare": 150}
    labels = [[name] for name, n in sizes.items() for _ in range(n)]
    real, fake = normal(1650, 32, 2), normal(1650, 32, 3)
    spread = {}
    for name in sizes:
        rows = [i for i, one in enumerate(labels) if one == [name]]
        spread[name] = frechet_distance(feature_statistics(real[rows]), feature_statistics(fake[rows]))
    assert spread["often"] == pytest.approx(32 * 33 / (2 * 1500), rel=0.3), "d (d + 1) / (2 n)"
    assert spread["rare"] > 4 * spread["often"], "the published table ranks by N"
    found = class_kernel_distance(real, labels, fake, labels, [*sizes, "none"], draws=100)
    for name, n in sizes.items():
        one = found[name]
        assert (one.real, one.fake) == (n, n)
        assert one.low < 0 < one.high, "both classes are drawn perfectly"
        assert one.low < one.distance < one.high
    assert math.isnan(found["none"].distance)
    moved = class_kernel_distance(real, labels, fake + 1, labels, ["rare"], draws=100)["rare"]
    assert moved.low > 0
    shuffled = torch.randperm(1650, generator=torch.Generator().manual_seed(0)).tolist()
    again = class_kernel_distance(real[shuffled], [labels[i] for i in shuffled], fake, labels, ["rare"], draws=0)
    assert again["rare"].distance == pytest.approx(found["rare"].distance, rel=1e-9)
