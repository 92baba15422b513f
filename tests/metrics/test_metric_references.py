"""Grounding metrics against scikit-learn, scipy and formulas written out here, for every option."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import jaccard_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics.functional import (
    box_contrast_to_noise_ratio,
    box_masks,
    centre_distance,
    contrast_to_noise_ratio,
    foreground,
    mixture_iou,
    mixture_threshold,
    multi_threshold_iou,
    paper_iou,
    pixel_auroc,
)

Array = NDArray[np.float64]

# Mixtures that are told where to stop have not converged.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def smooth_maps(seed: int, n: int = 4, size: int = 24) -> Tensor:
    """Positive maps like averaged attention: smoothed noise and a blob, (n, size, size) float32."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    maps = random.gamma(2.0, size=(n, size, size))
    for axis in (1, 2):
        maps = (maps + np.roll(maps, 1, axis) + np.roll(maps, 2, axis)) / 3
    for image in maps:
        u, v = random.uniform(0.2, 0.8, 2)
        image += random.uniform(1, 4) * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 0.03)
    return torch.from_numpy((maps / 100).astype(np.float32))


def random_boxes(seed: int, n: int, height: int, width: int, most: int = 3) -> list[Tensor]:
    """One to ``most`` boxes with fractions of pixels; some overlap, some are smaller than a pixel."""
    random = np.random.default_rng(seed)
    tables = []
    for _ in range(n):
        count = int(random.integers(1, most + 1))
        x, y = random.uniform(0, width - 6, count), random.uniform(0, height - 6, count)
        extent = random.uniform(2.0, 5.5, (2, count))
        tables.append(torch.from_numpy(np.stack([x, y, *extent], axis=1)))
    return tables


def union(boxes: list[Tensor], height: int, width: int) -> Tensor:
    return torch.stack([box_masks(table, (height, width)).any(dim=0) for table in boxes])


def quantised(maps: Tensor, levels: int) -> Tensor:
    low, high = maps.amin(), maps.amax()
    return ((maps - low) / (high - low) * levels).floor()


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda maps: maps,
    "two values": lambda maps: quantised(maps, 2),
    "seven values": lambda maps: quantised(maps, 7),
    "half of them one value": lambda maps: maps.clamp_min(float(maps.median())),
    "negative": lambda maps: -maps,
    "both signs and zeros": lambda maps: (quantised(maps, 9) - 4) * 0.25,
    "both signs, too far apart for 32 bits": lambda maps: (maps - maps.mean()) * 1e30,
    "bfloat16": lambda maps: maps.bfloat16(),
    "float16": lambda maps: maps.half(),
    "float64": lambda maps: maps.double() + 1e-12,
    "float64 with ties": lambda maps: quantised(maps, 5).double() / 3,
    "subnormal": lambda maps: quantised(maps, 9) * 1e-42,
}


@pytest.mark.parametrize("change", CHANGES)
def test_auroc_is_scikit_learns(change: str) -> None:
    maps = CHANGES[change](smooth_maps(0, n=6))
    masks = union(random_boxes(1, 6, 24, 24), 24, 24)
    scores = pixel_auroc(maps, masks)
    for score, image, mask in zip(scores, maps.double(), masks, strict=True):
        assert score.item() == pytest.approx(roc_auc_score(mask.flatten(), image.flatten()), abs=1e-12)


def test_auroc_of_a_full_image_is_scikit_learns() -> None:
    full = torch.nn.functional.interpolate(smooth_maps(2, n=2, size=64)[None], size=(512, 512), mode="bilinear")[0]
    full = torch.cat([full, quantised(full, 40)])
    masks = union(random_boxes(3, 1, 64, 64), 64, 64).repeat_interleave(8, 1).repeat_interleave(8, 2).expand(4, -1, -1)
    for score, image, mask in zip(pixel_auroc(full, masks), full, masks, strict=True):
        assert score.item() == pytest.approx(roc_auc_score(mask.flatten(), image.flatten()), abs=1e-9)


def plain_cnr(inside: Array, outside: Array, absolute: bool, unbiased: bool) -> float:
    ratio = (inside.mean() - outside.mean()) / math.sqrt(
        inside.var(ddof=int(unbiased)) + outside.var(ddof=int(unbiased))
    )
    return abs(ratio) if absolute else ratio


def plain_box(box: Array, height: int, width: int) -> NDArray[np.bool_]:
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width] + 0.5  # pixels whose centre lies inside
    return (columns > x) & (columns < x + w) & (rows > y) & (rows < y + h)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("region", ["union", "no_box", "later"])
def test_cnr_is_the_formula_in_every_option(region: str, absolute: bool, unbiased: bool) -> None:
    maps, boxes = smooth_maps(4, n=12), random_boxes(5, 12, 24, 24)
    if region == "union":
        scores = contrast_to_noise_ratio(maps, union(boxes, 24, 24), absolute, unbiased)
    else:
        scores = box_contrast_to_noise_ratio(maps, boxes, absolute, unbiased, exterior=region)  # type: ignore[arg-type]
    for score, image, table in zip(scores, maps.double().numpy(), boxes, strict=True):
        parts = [plain_box(box, 24, 24) for box in table.numpy()]
        if region == "union":
            pairs = [(np.any(parts, axis=0), ~np.any(parts, axis=0))]
        else:
            known = [parts if region == "no_box" else parts[: k + 1] for k in range(len(parts))]
            pairs = [(part, ~np.any(seen, axis=0)) for part, seen in zip(parts, known, strict=True)]
        ratios = [plain_cnr(image[a], image[b], absolute, unbiased) for a, b in pairs]
        assert score.item() == pytest.approx(float(np.mean(ratios)), rel=1e-9)
    assert absolute == bool((scores > 0).all()), "some of these ratios are negative"


def test_one_box_is_its_union_whatever_the_exterior() -> None:
    maps, boxes = smooth_maps(6, n=5), random_boxes(7, 5, 24, 24, most=1)
    expected = contrast_to_noise_ratio(maps, union(boxes, 24, 24))
    for exterior in ("no_box", "later"):
        found = box_contrast_to_noise_ratio(maps, boxes, exterior=exterior)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_cnr_of_a_box_that_cannot_be_scored_is_undefined() -> None:
    maps = smooth_maps(8, n=3)
    boxes = [torch.zeros(0, 4), torch.tensor([[0, 0, 24, 24]]), torch.tensor([[3, 3, 5, 5], [9, 9, 0.2, 0.2]])]
    assert box_contrast_to_noise_ratio(maps, boxes).isnan().tolist() == [True, True, True]
    assert box_contrast_to_noise_ratio(maps, boxes, unbiased=False).isnan().tolist() == [True, True, False]


def both_jaccards(pred: Tensor, mask: Tensor) -> tuple[float, float]:
    pair = mask.flatten().int().numpy(), pred.flatten().int().numpy()
    iou = float(jaccard_score(*pair))
    return iou, (iou + float(jaccard_score(*pair, pos_label=0))) / 2


def test_iou_is_scikit_learns_jaccard() -> None:
    maps, masks = smooth_maps(9, n=6), union(random_boxes(10, 6, 24, 24), 24, 24)
    cuts = mixture_threshold(maps)
    ious, means = mixture_iou(maps, masks)
    for iou, mean, image, mask, cut in zip(ious, means, maps, masks, cuts, strict=True):
        pred = image.double().numpy() > cut.item()
        smooth = pred.copy()
        for i, j in np.ndindex(22, 22):
            smooth[i + 1, j + 1] = pred[i : i + 3, j : j + 3].mean() >= 0.5
        assert (iou.item(), mean.item()) == pytest.approx(both_jaccards(torch.from_numpy(smooth), mask), rel=1e-12)


def test_multi_threshold_iou_is_the_mean_of_scikit_learns() -> None:
    maps, masks = smooth_maps(11, n=6), union(random_boxes(12, 6, 24, 24), 24, 24)
    for score, image, mask in zip(multi_threshold_iou(maps, masks), maps.double(), masks, strict=True):
        scaled = (image - image.min()) / (image.max() - image.min())
        ious = [both_jaccards(scaled > cut, mask)[0] for cut in (0.1, 0.2, 0.3, 0.4, 0.5)]
        assert score.item() == pytest.approx(np.mean(ious), rel=1e-12)


def start_of(values: Array) -> dict[str, Array]:
    """Arguments that start scikit-learn's mixture from 2-means begun at the mean of the values (n, 1)."""
    split = np.array([[values[values > values.mean()].mean()], [values[values <= values.mean()].mean()]])
    labels = KMeans(2, init=split, n_init=1, tol=0, algorithm="lloyd").fit(values).labels_
    groups = [values[labels == k] for k in (0, 1)]
    return {
        "weights_init": np.array([len(group) / len(values) for group in groups]),
        "means_init": np.array([group.mean(axis=0) for group in groups]),
        "precisions_init": np.array([[[1 / (group.var() + 1e-6)]] for group in groups]),
    }


@pytest.mark.parametrize("preset", ["standard", "paper"])
def test_mixture_threshold_is_scikit_learns_from_the_same_start(preset: str) -> None:
    maps = smooth_maps(13, n=6, size=32)
    found = mixture_threshold(maps, preset)  # type: ignore[arg-type]
    for cut, image in zip(found, maps.double().numpy(), strict=True):
        centre, scale = (image.mean(), image.std()) if preset == "standard" else (0.0, 1.0)
        values = ((image - centre) / scale).reshape(-1, 1)
        model = GaussianMixture(2, **start_of(values)).fit(values)
        assert cut.item() == pytest.approx(model.means_.mean() * scale + centre, rel=1e-7)


def test_mixture_threshold_is_scikit_learns_from_its_own_starts_within_their_spread() -> None:
    maps = smooth_maps(14, n=4, size=32)
    for cut, image in zip(mixture_threshold(maps), maps, strict=True):
        values = image.double().numpy().reshape(-1, 1)
        centre, scale = values.mean(), values.std()
        fits = [GaussianMixture(2, random_state=s).fit((values - centre) / scale).means_.mean() for s in range(5)]
        middle = (cut.item() - centre) / scale
        # In standard deviations of the map. Each fit stops where the likelihood gains 1e-3, wherever it began.
        assert min(fits) - 0.02 <= middle <= max(fits) + 0.02


def test_paper_iou_is_the_published_procedure() -> None:
    heat = smooth_maps(15, n=4, size=16)
    boxes = random_boxes(16, 4, 96, 128)
    masks = union([table * 3 for table in boxes], 96 * 3, 128 * 3)[:, :96, :128]
    masks[:, :40, :50] = True
    ious, means = paper_iou(heat, masks)
    for iou, mean, image, mask in zip(ious, means, heat.double().numpy(), masks, strict=True):
        values = image.reshape(-1, 1)
        binary = (image > GaussianMixture(2, **start_of(values)).fit(values).means_.mean()).astype(np.float32)
        smooth = binary.copy()
        for i, j in np.ndindex(14, 14):
            smooth[i + 1, j + 1] = binary[i : i + 3, j : j + 3].mean() >= 0.5
        large = torch.nn.functional.interpolate(torch.from_numpy(smooth)[None, None], size=(96, 128), mode="bilinear")
        assert (iou.item(), mean.item()) == pytest.approx(both_jaccards(large[0, 0].round(), mask), rel=1e-12)


def test_paper_preset_follows_the_units_and_the_standard_one_does_not() -> None:
    maps = smooth_maps(17, n=3)
    for preset, moves in (("standard", False), ("paper", True)):
        a, b = (mixture_threshold(maps.double() * factor, preset) / factor for factor in (1.0, 0.01))  # type: ignore[arg-type]
        assert moves != torch.allclose(a, b, rtol=1e-6, atol=0)


def test_distance_is_euclids() -> None:
    random = np.random.default_rng(18)
    pred = torch.from_numpy(random.random((20, 14, 17)) < 0.03)
    boxes = random_boxes(19, 20, 14, 17, most=2)
    scores = centre_distance(pred, boxes)
    for score, image, table in zip(scores, pred.numpy(), boxes, strict=True):
        places = np.argwhere(image)
        if len(table) != 1 or not len(places):
            assert score.isnan()
            continue
        centre = (places.min(axis=0) + places.max(axis=0)) / 2 + 0.5
        x, y, w, h = table[0].tolist()
        assert score.item() == pytest.approx(math.hypot(centre[0] - y - h / 2, centre[1] - x - w / 2), rel=1e-12)
    assert 0 < scores.isnan().sum() < 20


def test_foreground_compares_float32_maps_with_the_whole_threshold() -> None:
    values = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float32)
    for value in values:
        near = [value.double(), torch.nextafter(value.double(), torch.tensor(math.inf)), value.double() - 1e-12]
        for cut in near:
            found = foreground(values.reshape(1, 1, 3), cut)
            assert found.flatten().tolist() == (values.double() > cut).tolist()


def test_unknown_options_are_told() -> None:
    maps, masks = smooth_maps(20, n=1), torch.ones(1, 24, 24, dtype=torch.bool)
    with pytest.raises(UserError, match="preset"):
        mixture_threshold(maps, "raw")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="exterior"):
        box_contrast_to_noise_ratio(maps, [torch.zeros(0, 4)], exterior="all")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 arrays of boxes for 1 maps"):
        box_contrast_to_noise_ratio(maps, [torch.zeros(0, 4)] * 2)
    with pytest.raises(UserError, match="2 arrays of boxes for 1 maps"):
        centre_distance(masks, [torch.zeros(0, 4)] * 2)
    with pytest.raises(UserError, match="thresholds"):
        multi_threshold_iou(maps, masks, [0.5, 1.0])
    with pytest.raises(UserError, match="outside an image"):
        box_masks(torch.tensor([[30.0, 0, 2, 2]]), (24, 24))
    with pytest.raises(UserError, match="width, height"):
        box_masks(torch.zeros(4), (24, 24))
