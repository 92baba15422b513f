"""The map metrics as classes: means of their functions over batches, what is undefined counted."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from meddiff import metrics
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.metrics import (
    BoxContrastToNoiseRatio,
    CentreDistance,
    ContrastToNoiseRatio,
    MixtureIoU,
    MultiThresholdIoU,
    PixelAUROC,
    PointingGame,
)
from meddiff.metrics.functional import (
    box_contrast_to_noise_ratio,
    box_masks,
    centre_distance,
    contrast_to_noise_ratio,
    mixture_iou,
    multi_threshold_iou,
    paper_iou,
    pixel_auroc,
    pointing_game,
)
from meddiff.metrics.maps import MapMetric

Case = tuple[Callable[[], MapMetric], str, Callable[[Any, Any], Tensor | tuple[Tensor, ...]]]

#: class, what it is asked about (maps or binary images; masks or boxes), and its twin.
CASES: dict[str, Case] = {
    "cnr": (ContrastToNoiseRatio, "maps masks", contrast_to_noise_ratio),
    "cnr absolute biased": (
        lambda: ContrastToNoiseRatio(absolute=True, unbiased=False),
        "maps masks",
        lambda maps, masks: contrast_to_noise_ratio(maps, masks, absolute=True, unbiased=False),
    ),
    "box cnr": (BoxContrastToNoiseRatio, "maps boxes", box_contrast_to_noise_ratio),
    "box cnr third party": (
        lambda: BoxContrastToNoiseRatio(absolute=True, unbiased=False, exterior="later"),
        "maps boxes",
        lambda maps, boxes: box_contrast_to_noise_ratio(maps, boxes, True, False, "later"),
    ),
    "auroc": (PixelAUROC, "maps masks", pixel_auroc),
    "top1": (PointingGame, "maps masks", pointing_game),
    "top1 tolerant": (
        lambda: PointingGame(tolerance=2.5),
        "maps masks",
        lambda maps, masks: pointing_game(maps, masks, 2.5),
    ),
    "mixture": (MixtureIoU, "maps masks", mixture_iou),
    "mixture paper": (lambda: MixtureIoU("paper"), "maps masks", paper_iou),
    "biovil": (MultiThresholdIoU, "maps masks", multi_threshold_iou),
    "two thresholds": (
        lambda: MultiThresholdIoU([0.2, 0.9]),
        "maps masks",
        lambda maps, masks: multi_threshold_iou(maps, masks, [0.2, 0.9]),
    ),
    "distance": (CentreDistance, "pred boxes", centre_distance),
}


def inputs(kinds: str, n: int = 9) -> tuple[Any, Any]:
    """Maps of which the third is constant (or binary images of which it is empty), and masks or boxes."""
    random = generator(0, "map classes")
    maps = torch.from_numpy(random.random((n, 12, 14)))
    maps[2] = 0.5
    boxes = [torch.tensor([[float(i), 2.0, 4.0, 3.0], [1.0, 7.0, 3.0, 3.0]][: 1 + i % 2]) for i in range(n)]
    first, second = kinds.split()
    masks = torch.stack([box_masks(table, (12, 14)).any(dim=0) for table in boxes])
    return maps > 0.9 if first == "pred" else maps, masks if second == "masks" else boxes


@pytest.mark.parametrize("name", CASES)
def test_class_is_the_mean_of_its_function(name: str) -> None:
    make, kinds, function = CASES[name]
    a, b = inputs(kinds)
    metric = make()
    for part in (slice(0, 2), slice(2, 2), slice(2, 9)):
        metric.update(a[part], b[part])
    scores = function(a, b)
    columns = scores if isinstance(scores, tuple) else (scores,)
    defined = torch.stack(columns).isfinite().all(dim=0)
    result = metric.compute()
    assert list(result) == [*metric.columns, "n", "excluded"]
    assert (result["n"], result["excluded"]) == (float(defined.sum()), float((~defined).sum()))
    assert result["excluded"] >= 1, "the third sample is undefined"
    for column, values in zip(metric.columns, columns, strict=True):
        assert result[column] == pytest.approx(float(values[defined].mean()), rel=1e-12)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_nan_and_counted_as_zero(name: str) -> None:
    metric = CASES[name][0]()
    a, b = inputs(CASES[name][1])
    assert math.isnan(metric.compute()[metric.columns[0]])
    metric.update(a[2:3], b[2:3])
    result = metric.compute()
    assert math.isnan(result[metric.columns[0]])
    assert (result["n"], result["excluded"]) == (0, 1)
    metric.reset()
    assert metric.compute()["excluded"] == 0


def test_every_metric_of_the_room_is_exported() -> None:
    from torchmetrics import Metric

    for name in metrics.__all__:
        found = getattr(metrics, name)
        assert callable(found)
    classes = {kind for kind in map(metrics.__getattr__, metrics.__all__) if isinstance(kind, type)}
    assert {type(make()) for make, _, _ in CASES.values()} <= {kind for kind in classes if issubclass(kind, Metric)}


def test_an_unknown_preset_is_told_when_the_metric_is_made() -> None:
    with pytest.raises(UserError, match="preset"):
        MixtureIoU("raw")  # type: ignore[arg-type]
