"""Latent AUROC, accuracy and TAD: planted answers are found, shuffled and rotated ones are not."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.metrics import LatentQuality
from meddiff.metrics.functional.disentanglement import shared_entropy, single_areas, tad
from meddiff.metrics.functional.latent_probe import folds_of, latent_accuracy, latent_auroc


def planted(n: int = 600, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Three attributes, each the sign of a latent of its own (the second upside down), and three latents of noise."""
    random = torch.Generator().manual_seed(0)
    values = torch.randn(n, 6, generator=random)
    labels = (values[:, :3] + noise * torch.randn(n, 3, generator=random) > 0).float()
    values[:, 1] *= -3.0
    return values, labels


def test_it_is_the_protocol_as_scikit_learn_does_it() -> None:
    values, labels = planted()
    expected = np.zeros((5, 3))
    for f, (learn, test) in enumerate(KFold(5, shuffle=True, random_state=0).split(values[:500])):
        for a in range(3):
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            probe.fit(values[learn].double().numpy(), labels[learn, a].numpy())
            expected[f, a] = roc_auc_score(labels[test, a], probe.decision_function(values[test].double().numpy()))
    found = latent_auroc(values, labels, rows=500)
    assert found.rows == 500
    assert [one.value for one in found.attributes] == pytest.approx(expected.mean(axis=0), abs=1e-6)
    assert found.mean.value == pytest.approx(expected.mean(), abs=1e-6)
    assert all(one.low < one.value < one.high for one in (found.mean, *found.attributes))


def test_shuffled_labels_are_chance_within_the_interval_and_true_ones_are_not() -> None:
    values, labels = planted()
    random, true = torch.Generator().manual_seed(1), latent_auroc(values, labels)
    controls = [latent_auroc(values, labels[torch.randperm(len(labels), generator=random)]) for _ in range(8)]
    covered = [one.low < 0.5 < one.high for control in controls for one in control.attributes]
    assert sum(covered) >= 21, "95 % of 24, less two standard deviations"
    assert max(control.mean.high for control in controls) < true.mean.low
    assert tad(values, labels[torch.randperm(len(labels), generator=random)]).captured == 0


def test_scale_and_shift_of_a_latent_change_nothing() -> None:
    values, labels = planted()
    moved = values.double() * torch.logspace(-4, 4, 6) + 1000
    assert latent_auroc(moved, labels).mean.value == pytest.approx(latent_auroc(values, labels).mean.value, abs=1e-4)


def test_a_patient_is_in_one_fold_so_that_learning_patients_by_heart_does_not_pay() -> None:
    random = torch.Generator().manual_seed(2)
    codes, answers = torch.randn(60, 80, generator=random), torch.rand(60, generator=random) < 0.5
    patients = torch.arange(600) % 60
    values, labels = codes[patients], answers[patients, None].float()
    by_row, by_patient = latent_auroc(values, labels), latent_auroc(values, labels, patients.tolist())
    assert by_row.mean.value > 0.95
    assert by_patient.mean.low < 0.5 < by_patient.mean.high
    fold = folds_of(patients.tolist(), 600)
    assert all(len(set(fold[patients.numpy() == one])) == 1 for one in range(60))


def test_the_jackknife_is_leaving_each_group_out() -> None:
    from meddiff.metrics.functional.latent_probe import _left_out

    random = np.random.default_rng(0)
    scores, positive, place = random.integers(5, size=40) / 5, random.random(40) < 0.4, random.integers(12, size=40)
    area, moves = _left_out(scores, positive, place, 13)
    left = np.asarray([roc_auc_score(positive[place != g], scores[place != g]) for g in range(12)])
    assert area == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert moves[:12] == pytest.approx(math.sqrt(11 / 12) * (left - left.mean()), abs=1e-12)
    assert moves[12] == 0


def test_unknown_labels_are_left_out_and_an_attribute_of_one_kind_has_no_value() -> None:
    values, labels = planted()
    labels[::2, 0], labels[:, 1] = math.nan, 1.0
    found = latent_auroc(values, labels)
    assert found.attributes[0].value > 0.9
    assert math.isnan(found.attributes[1].value)
    assert found.mean.value == pytest.approx((found.attributes[0].value + found.attributes[2].value) / 2)
    lied = labels.clone()
    lied[::2, 0] = 0.0  # what taking blank for absent would give
    assert latent_auroc(values, lied).attributes[0].value < found.attributes[0].value
    single = tad(values, labels)
    assert (single.latent[1], single.sign[1]) == (-1, 0)
    assert single.latent[0] == 0


def test_accuracy_of_classes() -> None:
    values, _ = planted()
    classes = values[:, 3:].argmax(dim=1) * 10
    order = torch.randperm(600, generator=torch.Generator().manual_seed(3))
    found, control = latent_accuracy(values, classes), latent_accuracy(values, classes[order])
    assert control.low < 1 / 3 < control.high < found.low < found.value
    with pytest.raises(UserError, match="one class"):
        latent_accuracy(values, classes * 0)


def test_one_planted_latent_an_attribute_is_captured_with_the_right_tad() -> None:
    values, labels = planted()
    found = tad(values, labels)
    areas = np.asarray([[roc_auc_score(labels[:, a], values[:, j]) for a in range(3)] for j in range(6)])
    either = np.sort(np.maximum(areas, 1 - areas), axis=0)
    assert found.captured == 3
    assert found.latent.tolist() == [0, 1, 2]
    assert found.sign.tolist() == [1, -1, 1]
    # means over training folds of 480 of 600 rows: near those of all rows
    assert found.tad == pytest.approx((either[-1] - either[-2]).sum(), abs=0.05)
    assert found.best == pytest.approx(either[-1], abs=0.01)
    known = np.ones(labels.shape, bool)
    assert single_areas(values.numpy(), known, labels.numpy()) == pytest.approx(areas, abs=1e-12)


def test_rotated_latents_say_the_same_together_and_capture_nothing_alone() -> None:
    values, labels = planted()
    scaled = values / values.std(dim=0)
    mixed, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(4)))
    spread = (
        torch.tensor([[1.0, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1]]) / 2
    )  # no latent leans on one attribute alone
    assert latent_auroc(scaled @ mixed, labels).mean.value == pytest.approx(
        latent_auroc(values, labels).mean.value, abs=0.01
    )
    rotated = tad(scaled[:, :3] @ spread.T, labels)
    assert rotated.captured < 3
    assert rotated.tad < 0.1 < tad(values, labels).tad
    assert (rotated.best - rotated.second).max() < 0.1


def test_two_attributes_that_are_nearly_one_are_not_captured() -> None:
    values, labels = planted()
    twins = torch.cat([labels, labels[:, :1]], dim=1)
    twins[:30, 3] = 1 - twins[:30, 3]
    found = tad(values, twins)
    assert found.in_folds.tolist() == [0, 1, 1, 0]
    assert found.shared[0] > 0.2 > found.shared[1]
    known = np.ones((4, 2), bool)
    # H(a) = 1 bit; b is 1 in one of the two cases of a: I(a; b) = H(1/4) - H(1/2) / 2 = 0.8113 - 0.5
    share = shared_entropy(known, np.asarray([[0.0, 0], [0, 0], [1, 0], [1, 1]]))
    assert share == pytest.approx([0.311278, 0.311278 / 0.811278], abs=1e-6)


def test_one_latent_alone_has_chance_for_a_second() -> None:
    values, labels = planted()
    found = tad(values[:, :1], labels[:, :1])
    assert (found.captured, found.second.tolist()) == (1, [0.5])
    assert found.tad == pytest.approx(found.best[0] - 0.5)


def test_the_class_does_not_hang_on_batches_or_their_order() -> None:
    values, labels = planted(200)
    places = torch.arange(200) * 3
    whole, parts = (LatentQuality(["a", "b", "c"], rows=150) for _ in range(2))
    whole.update(values, labels, places)
    for part in torch.arange(200).flip(0).split(37):
        parts.update(values[part], labels[part], places[part])
    found = whole.compute()
    assert parts.compute() == pytest.approx(found, abs=1e-12)
    assert found["latent_auroc"] == pytest.approx(latent_auroc(values, labels, rows=150).mean.value, abs=1e-12)
    assert found["captured"] == 3
    assert (found["b/latent"], found["b/captured"], found["rows"], found["dead_share"]) == (1, 1, 150, 0)


def test_bad_input_is_told() -> None:
    values, labels = planted(20)
    with pytest.raises(UserError, match="0, 1 and NaN"):
        latent_auroc(values, labels * 2)
    with pytest.raises(UserError, match="diverged"):
        latent_auroc(values * math.nan, labels)
    with pytest.raises(UserError, match="shapes"):
        tad(values[:10], labels)
    with pytest.raises(UserError, match="5 folds"):
        latent_auroc(values, labels, ["one"] * 20)
    with pytest.raises(UserError, match="different names"):
        LatentQuality(["a", "a"])
    with pytest.raises(UserError, match="one row an image"):
        LatentQuality(["a"]).update(values, labels, torch.arange(20))
