"""Averages of grounding scores: micro, macro, by class; what is left out is counted."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics import GroundingScores, grounding, score_maps, summarise
from meddiff.metrics.functional import contrast_to_noise_ratio, mean_iou, mixture_threshold, pixel_auroc, pointing_game
from meddiff.metrics.summary import Score

CLASSES = ["edema", "lung opacity", "pneumonia"]


def batch(seed: int, n: int) -> tuple[Tensor, Tensor, list[str]]:
    random = np.random.default_rng(seed)
    maps, masks = random.random((n, 12, 10)), np.zeros((n, 12, 10), dtype=bool)
    for mask in masks:
        top, left = random.integers(0, 8, size=2)
        mask[top : top + 4, left : left + 3] = True
    names = [CLASSES[i] for i in random.integers(0, 2, size=n)]
    return torch.from_numpy(maps + 0.3 * masks), torch.from_numpy(masks), names


def row(name: str, cnr: float | None, auroc: float = 0.5) -> dict[str, Score]:
    return {"class": name, "cnr": cnr, "auroc": auroc, "top1": 1.0, "miou": 0.25}


def test_summary_of_unequal_classes() -> None:
    scores = summarise([row("a", 1.0, 0.9), row("a", -3.0, 0.1), row("a", 5.0, 0.5), row("b", -2.0, 0.7)])
    assert scores["cnr"] == 1 / 4
    assert scores["cnr_abs"] == 11 / 4
    assert scores["macro_cnr"] == (1.0 - 2.0) / 2
    assert scores["macro_cnr_abs"] == (3.0 + 2.0) / 2
    assert scores["auroc"] == pytest.approx(2.2 / 4, rel=1e-12)
    assert scores["macro_auroc"] == pytest.approx((0.5 + 0.7) / 2, rel=1e-12)
    assert (scores["a/n"], scores["b/n"], scores["n"], scores["excluded"]) == (3, 1, 4, 0)
    assert (scores["a/cnr"], scores["a/cnr_abs"], scores["b/cnr"], scores["b/miou"]) == (1.0, 3.0, -2.0, 0.25)


@pytest.mark.parametrize("undefined", [None, math.nan, math.inf])
def test_undefined_samples_leave_every_average_and_are_counted(undefined: float | None) -> None:
    kept = [row("a", 1.0, 0.9), row("b", 2.0, 0.6)]
    scores = summarise([*kept, row("a", undefined, 0.0), row("c", undefined, 0.0)])
    assert scores["excluded"] == 2
    assert scores["c/n"] == 0
    assert math.isnan(scores["c/auroc"])
    clean = summarise(kept)
    assert {name: scores[name] for name in clean if name != "excluded"} == {
        name: value for name, value in clean.items() if name != "excluded"
    }


def test_further_columns_are_averaged_where_they_are_defined() -> None:
    rows = [row("a", 1.0) | {"distance": 4.0}, row("a", 2.0) | {"distance": None}, row("b", 3.0) | {"distance": 10.0}]
    rows += [
        row("b", 1.0) | {"distance": 20.0},
        row("c", 1.0) | {"distance": math.nan},
        row("a", None) | {"distance": 9.0},
    ]
    scores = summarise(rows, extra=["distance"])
    assert (scores["distance"], scores["distance/n"]) == (34 / 3, 3)
    assert (scores["a/distance"], scores["b/distance"], scores["macro_distance"]) == (4.0, 15.0, 9.5)
    assert math.isnan(scores["c/distance"])
    assert {name: value for name, value in scores.items() if "distance" not in name} == summarise(rows)


def test_summary_of_nothing_is_nan_and_counts_zero() -> None:
    scores = summarise([])
    assert math.isnan(scores["cnr"])
    assert math.isnan(scores["macro_auroc"])
    assert (scores["n"], scores["excluded"]) == (0, 0)


def test_summary_does_not_depend_on_the_order() -> None:
    random = np.random.default_rng(0)
    rows = [
        row(CLASSES[i % 3], float(v))
        for i, v in enumerate(random.normal(size=200) * 10.0 ** random.integers(0, 9, 200))
    ]
    assert summarise(rows) == summarise(rows[::-1])  # exactly: math.fsum rounds once, whatever the order


def test_the_papers_average_is_the_micro_one() -> None:
    # Class means of the frozen model's CNR and the sizes of the MS-CXR classes, spec/published and spec/tradeoff.md.
    sizes = {"a": 61, "b": 333, "c": 117, "d": 46, "e": 82, "f": 96, "g": 182, "h": 245}
    means = {name: float(i) for i, name in enumerate(sizes)}
    scores = summarise([row(name, means[name]) for name, n in sizes.items() for _ in range(n)])
    assert scores["macro_cnr"] == 3.5
    assert scores["cnr"] == pytest.approx(sum(means[name] * n for name, n in sizes.items()) / 1162, rel=1e-12)


def test_score_maps_in_parts_is_the_functions_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounding, "PIXELS", 250)  # two maps of 120 pixels at once
    maps, masks, _ = batch(1, 7)
    scores = score_maps(maps, masks)
    functions = {"cnr": contrast_to_noise_ratio, "auroc": pixel_auroc, "top1": pointing_game, "miou": mean_iou}
    assert list(scores) == list(functions)
    for name, function in functions.items():
        torch.testing.assert_close(scores[name], function(maps, masks), rtol=1e-9, atol=0)


def test_the_threshold_of_the_iou_may_be_that_of_other_maps() -> None:
    maps, masks, names = batch(5, 6)
    coarse = mixture_threshold(maps[:, ::2, ::2])
    metric = GroundingScores(CLASSES)
    metric.update(maps, masks, names, coarse)
    found = [row["miou"] for row in metric.rows()]
    assert found == pytest.approx(mean_iou(maps, masks, coarse).tolist(), rel=1e-12)
    assert found != pytest.approx(mean_iou(maps, masks).tolist(), rel=1e-3)
    with pytest.raises(UserError, match="one for each of 6 maps"):
        score_maps(maps, masks, coarse[:1])


def test_metric_over_batches_is_the_summary_of_all_samples() -> None:
    maps, masks, names = batch(2, 11)
    maps[4] = 0.5
    metric = GroundingScores(CLASSES)
    for part in (slice(0, 4), slice(4, 4), slice(4, 11)):
        metric.update(maps[part], masks[part], names[part])
    scores = score_maps(maps, masks)
    rows = [{"class": name, **{k: v[i].item() for k, v in scores.items()}} for i, name in enumerate(names)]
    result = metric.compute()
    assert result == pytest.approx(summarise(rows), rel=1e-12)
    assert (result["excluded"], result["n"]) == (1, 10)
    assert "pneumonia/n" not in result
    assert [r["class"] for r in metric.rows()] == names
    metric.reset()
    assert metric.rows() == []


def test_metric_keeps_double_precision_when_the_module_does_not() -> None:
    maps, masks, names = batch(3, 5)
    metric = GroundingScores(CLASSES).to(torch.bfloat16).to("cpu")
    metric.update(maps, masks, names)
    # torch adds in an order of the processor's own; float32 would be off by 1e-8.
    expected = contrast_to_noise_ratio(maps, masks).mean().item()
    assert metric.compute()["cnr"] == pytest.approx(expected, rel=1e-12)


def test_bad_input_of_the_metric_is_told() -> None:
    maps, masks, names = batch(4, 3)
    with pytest.raises(UserError, match="different names"):
        GroundingScores(["edema", "edema"])
    with pytest.raises(UserError, match="different names"):
        GroundingScores([])
    metric = GroundingScores(CLASSES)
    with pytest.raises(UserError, match="'fracture'"):
        metric.update(maps, masks, ["edema", "fracture", "edema"])
    with pytest.raises(UserError, match="2 class names for 3 maps"):
        metric.update(maps, masks, names[:2])
    with pytest.raises(UserError, match="resize"):
        metric.update(maps, masks[:2], names)
    assert metric.rows() == [], "what was refused must not be counted"
