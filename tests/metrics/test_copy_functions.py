"""Copies, novelty, absent findings and size: the specification's numbers, brute force, and what published code gets wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, spearmanr
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.metrics.functional.absent import absent_auroc, false_focus, map_scores, no_target_accuracy, presence_auroc
from meddiff.metrics.functional.copies import (
    calibrated_ratio,
    copy_threshold,
    held_out_share,
    nearest_pixels,
    pixel_grid,
)
from meddiff.metrics.functional.novelty import authentic, copying_score, copying_test
from meddiff.metrics.functional.size_strata import by_size, size_correlation, stratum


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def normal(n: int, d: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# ---- authenticity, copying test -----------------------------------------------------------------------------------------


def test_authenticity_is_that_of_the_specification_and_of_brute_force() -> None:
    assert authentic(column(0, 1, 3, 7), column(0.2, 2, 7.1, 12)).double().mean() == pytest.approx(0.25)
    train, drawn = normal(40, 3), normal(25, 3, seed=1)
    expected = []
    for one in drawn:
        apart = (train - one).norm(dim=1)
        place = int(apart.argmin())
        others = (train - train[place]).norm(dim=1)
        others[place] = torch.inf
        expected.append(bool(others.min() < apart[place]))
    for chunk in (1, 6, 1024):
        assert authentic(train, drawn, chunk).tolist() == expected
    assert not authentic(train, train).any(), "copies are not authentic"


def test_the_copying_test_is_that_of_the_specification_and_of_mann_and_whitney() -> None:
    train, held_out, drawn = column(0, 10), column(1, 4, 12), column(0.5, 2, 9.5, 10.2)
    assert copying_test(train, held_out, drawn, components=0, cells=1, fewest=0) == pytest.approx(-1.414214, abs=1e-6)
    assert copying_score(torch.tensor([1.0, 4, 2]), torch.tensor([0.5, 2, 0.5, 0.2])) == pytest.approx(
        -1.414214, abs=1e-6
    )
    real, fake = normal(30, 1).abs().flatten().round(decimals=1), normal(40, 1, 1).abs().flatten().round(decimals=1)
    wins = float(mannwhitneyu(fake, real).statistic)  # ties count one half
    expected = (wins - (30 * 40 / 2 - 0.5)) / math.sqrt(30 * 40 * 71 / 12)
    assert copying_score(real, fake) == pytest.approx(expected, rel=1e-12)


def test_copies_have_a_very_negative_score_and_a_test_without_cells_has_none() -> None:
    train, held_out = normal(300), normal(200, seed=1)
    fair, copied = (copying_test(train, held_out, drawn) for drawn in (normal(200, seed=2), train[:200] + 0.01))
    assert abs(fair) < 3
    assert copied < -8
    again = copying_test(train, held_out, normal(200, seed=2), chunk=33)
    assert again == pytest.approx(fair, rel=1e-9)
    assert math.isnan(copying_test(train, held_out, normal(20, seed=2))), "the published code says -1, a legal value"


# ---- calibrated ratio -----------------------------------------------------------------------------------------------------


def test_the_ratio_is_that_of_the_specification_in_both_readings() -> None:
    train = torch.tensor([[0.0, 0], [4, 0], [0, 4], [4, 4], [10, 10]])
    drawn = torch.tensor([[0.1, 0], [2, 2], [1, 0]])
    assert calibrated_ratio(drawn, train, 3).tolist() == pytest.approx([0.07499, 2.0, 0.73863], abs=5e-6)
    by_reference = calibrated_ratio(drawn, train, 3, by_reference=True).tolist()
    assert by_reference == pytest.approx([0.075, 2.12132, 0.75], abs=5e-6)


def distance_of_bytes(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """As published: bytes less bytes are bytes."""
    return math.sqrt(((a - b).astype(float) ** 2).mean())


def test_differences_of_bytes_wrap_around_where_differences_of_numbers_do_not() -> None:
    a, b = (np.array(one, np.uint8) for one in ([[10, 200], [0, 128]], [[12, 190], [255, 129]]))
    assert distance_of_bytes(a, b) == pytest.approx(180.03, abs=0.005), "the published pixel distance"
    grids = [pixel_grid(torch.from_numpy(one)[None, None], side=2) for one in (a, b)]
    assert float((grids[0] - grids[1]).square().mean().sqrt()) == pytest.approx(127.60, abs=0.005)
    noise = [generator(0, "bytes", k).integers(0, 256, (256, 256), np.uint8) for k in (0, 1)]
    assert distance_of_bytes(*noise) == pytest.approx(147.37, abs=0.5), "of two images that have nothing in common"
    image = (np.indices((256, 256)).sum(axis=0) // 3 + 40).astype(np.uint8)
    near = (image + generator(0, "near").normal(0, 2, image.shape)).round().astype(np.uint8)
    assert distance_of_bytes(image, near) > 135, "and of an image and its near copy"
    assert np.sqrt(((image.astype(float) - near) ** 2).mean()) == pytest.approx(2.08, abs=0.1)


# ---- copies in pixels -----------------------------------------------------------------------------------------------------


def pictures(n: int, seed: int, side: int = 128) -> Tensor:
    """Smooth pictures of one kind: what all have in common, and what is each one's own."""
    own = F.interpolate(normal(n, 100, seed).reshape(n, 1, 10, 10), size=side, mode="bicubic", align_corners=False)
    common = F.interpolate(normal(1, 36, 99).reshape(1, 1, 6, 6), size=side, mode="bicubic", align_corners=False)
    return (common * 1.5 + own).clamp(-4, 4) / 4


def moved(images: Tensor, pixels: int) -> Tensor:
    side = images.shape[-1]
    return F.pad(images, (pixels, 0, pixels, 0), mode="replicate")[..., :side, :side]


def test_shifted_noisy_and_mirrored_copies_are_caught_and_held_out_images_are_not() -> None:
    train, held_out = pictures(100, 0), pictures(120, 1)
    reference = pixel_grid(train)
    real = nearest_pixels(pixel_grid(held_out), reference).distances[:, 0]
    cut = copy_threshold(real)

    def share(images: Tensor, **more: object) -> float:
        return float((nearest_pixels(pixel_grid(images), reference, **more).distances[:, 0] < cut).double().mean())

    some = train[:30]
    noisy = moved(some, 4) + normal(30, 128 * 128, 5).reshape(some.shape) * 2 / 127.5
    assert share(some) == 1
    assert share(moved(some, 4)) >= 0.99, "4 px of 128 are 2 of the grid"
    assert share(noisy) > 0.95
    assert share(((some + 1) / 2) ** 0.8 * 2 - 1) == 1
    assert share(moved(some, 4), shifts=0) < share(moved(some, 4))
    assert share(some.flip(3)) < 0.2, "mirrored copies have to be looked for"
    assert share(some.flip(3), mirrored=True) == 1
    assert float(held_out_share(real).double().mean()) <= 0.03
    ratios = [nearest_pixels(pixel_grid(one), reference).ratio for one in (some, held_out)]
    assert ratios[0].max() < 0.05
    assert ratios[1].min() > 1
    assert nearest_pixels(pixel_grid(moved(some, 4)), reference).places[:, 0].tolist() == list(range(30))


def test_pixels_are_those_of_brute_force_for_any_block() -> None:
    train, drawn = normal(9, 64), normal(7, 64, seed=1)
    expected = []
    for one in drawn.double().reshape(-1, 8, 8):
        best = []
        for other in train.double().reshape(-1, 8, 8)[:, 1:-1, 1:-1]:
            b = (other - other.mean()) / other.std(correction=0)
            cuts = [one[1 + y : 7 + y, 1 + x : 7 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
            best.append(min(float((((a - a.mean()) / a.std(correction=0)) - b).square().mean().sqrt()) for a in cuts))
        expected.append(sorted(best))
    for chunk in (1, 3, 100):
        found = nearest_pixels(drawn, train, k=9, border=1, shifts=1, chunk=chunk).distances
        assert found.numpy() == pytest.approx(np.array(expected), rel=1e-9)


def test_a_threshold_holds_what_it_says_and_the_published_one_twenty_times_as_many() -> None:
    apart = normal(2000, 1).abs().flatten()
    assert float((apart < copy_threshold(apart)).double().mean()) == pytest.approx(0.01, abs=0.001)
    scores = normal(2000, 1, seed=1).flatten()  # of pairs of different images; greater: more alike
    false = float((scores > scores.quantile(0.05)).double().mean())
    assert false == pytest.approx(0.95, abs=0.001), "the 5th percentile of negatives calls 95 % of them copies"
    assert float(held_out_share(apart).double().mean()) == pytest.approx(0.01, abs=0.008)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pixel_grid(torch.zeros(1, 1, 32, 64)), "smaller than the grid"),
        (lambda: nearest_pixels(torch.zeros(1, 64), torch.zeros(1, 64), border=1, shifts=2), "border of as many"),
        (lambda: nearest_pixels(torch.zeros(1, 60), torch.zeros(1, 60)), "side \\* side"),
        (lambda: nearest_pixels(torch.full((1, 64), torch.nan), torch.zeros(1, 64)), "not finite"),
        (lambda: copy_threshold(torch.zeros(0)), "held-out images"),
    ],
)
def test_what_cannot_be_compared_is_told(call: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        call()  # type: ignore[operator]


# ---- absent findings, size ------------------------------------------------------------------------------------------------


def test_the_absent_are_told_as_the_specification_says_and_a_blind_map_tells_nothing() -> None:
    assert presence_auroc([3, 1, 0.5], [0.8, 0.2]) == pytest.approx(0.833333, abs=1e-6)
    maps = torch.rand(40, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = map_scores(maps)["top"].tolist()
    blind = absent_auroc(scores * 2, [True] * 40 + [False] * 40, ["a", "b"] * 40)  # the image alone decides
    assert blind[""] == pytest.approx(0.5)
    seeing = absent_auroc([*scores, *(one - 1 for one in scores)], [True] * 40 + [False] * 40, ["a", "b"] * 40)
    assert seeing[""] == 1
    flat = maps.flatten(1)
    low, high = flat.amin(1)[:, None], flat.amax(1)[:, None]
    louder = torch.cat([maps + 1, maps])  # presence is in the level
    scaled = (louder.flatten(1) - torch.cat([low + 1, low])) / torch.cat([high - low] * 2)
    present = [True] * 40 + [False] * 40
    hidden = absent_auroc(map_scores(scaled.reshape(80, 16, 16))["max"].tolist(), present, ["a"] * 80)
    shown = absent_auroc(map_scores(louder)["max"].tolist(), present, ["a"] * 80)
    assert hidden[""] == pytest.approx(0.5, abs=0.15), "a map brought to 0..1 hides that nothing is there"
    assert shown[""] == 1


def test_false_focus_and_silence() -> None:
    cnr = [1.0, 2.0, 0.5]
    assert false_focus(cnr, cnr, ["a", "a", "b"], ["a", "a", "b"]) == pytest.approx(0), "a prior looks without evidence"
    assert false_focus([0.0, math.nan], [2.0, 1.0], ["a", "a"], ["a", "b"]) == pytest.approx(-2)
    assert math.isnan(false_focus([1.0], [1.0], ["a"], ["b"]))
    validation, absent = normal(1000, 1).flatten().tolist(), normal(1000, 1, seed=1).flatten().tolist()
    assert no_target_accuracy(validation, absent) == pytest.approx(0.05, abs=0.03), "blind: what is given away"
    assert no_target_accuracy(validation, [one - 10 for one in absent]) == 1
    assert math.isnan(no_target_accuracy([], absent))


def test_scores_by_size_do_not_mix_classes_up_with_sizes() -> None:
    assert [stratum(one) for one in (0.0199, 0.02, 0.08, 0.0801)] == ["small", "medium", "medium", "large"]
    shares, values = [0.01, 0.01, 0.05, 0.2, 0.3, 0.3], [1.0, 3.0, math.nan, 5.0, 9.0, 7.0]
    found = by_size(values, shares, ["nodule", "heart", "heart", "nodule", "heart", "heart"])
    assert (found["small"]["mean"], found["small"]["n"], found["medium"]["n"]) == (2, 2, 0)
    assert math.isnan(found["medium"]["mean"])
    assert found["large"]["mean"] == pytest.approx(7)
    assert found["large"]["macro"] == pytest.approx(6.5)
    assert (found["large"]["heart/mean"], found["large"]["heart/n"]) == (8, 2)
    random = np.random.default_rng(0)
    x, y = random.normal(size=50), np.exp(random.normal(size=50))
    assert size_correlation(x.tolist(), y.tolist()) == pytest.approx(spearmanr(x, np.log(y)).statistic, rel=1e-9)
    assert math.isnan(size_correlation([1.0, 1.0, 1.0], [0.1, 0.2, 0.3]))
