"""The classifier's AUROC by class against scikit-learn, and who counts as positive and negative."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from meddiff.common.errors import UserError
from meddiff.metrics import ClassifierAUROC
from meddiff.metrics.functional.class_auroc import class_auroc, exact_label_sets

CLASSES = ["edema", "pneumonia", "nodule"]


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_agrees_with_scikit_learn_also_with_heavy_ties(levels: int) -> None:
    random = np.random.default_rng(levels)
    scores = random.integers(levels, size=(300, 3)) / levels - 0.3
    positive = random.random((300, 3)) < 0.3
    negative = ~positive & (random.random((300, 3)) < 0.6)
    found = class_auroc(*(torch.from_numpy(values) for values in (scores, positive, negative)))
    for c in range(3):
        used = positive[:, c] | negative[:, c]
        assert found[c].item() == pytest.approx(roc_auc_score(positive[used, c], scores[used, c]), abs=1e-12)


def test_a_constant_score_is_chance_and_the_order_is_all_that_counts() -> None:
    scores = torch.tensor([[0.1], [0.4], [0.3], [0.9]])
    positive = torch.tensor([[False], [True], [False], [True]])
    assert class_auroc(scores, positive, ~positive).item() == 1.0
    assert class_auroc(-scores, positive, ~positive).item() == 0.0
    assert class_auroc((5 * scores).exp(), positive, ~positive).item() == 1.0
    assert class_auroc(torch.zeros(4, 1), positive, ~positive).item() == 0.5


def test_without_both_kinds_or_with_scores_that_are_no_numbers_it_is_undefined() -> None:
    scores = torch.tensor([[0.1, 0.2, math.nan], [0.4, 0.1, 0.0]])
    positive = torch.tensor([[True, False, True], [True, False, False]])
    negative = torch.tensor([[False, True, False], [False, True, True]])
    assert all(math.isnan(value) for value in class_auroc(scores, positive, negative).tolist())
    left_out = torch.tensor([[math.nan], [0.9], [0.2]])  # the first is in neither set
    sets = torch.tensor([[False], [True], [False]]), torch.tensor([[False], [False], [True]])
    assert class_auroc(left_out, *sets).item() == 1.0


def test_only_exactly_labelled_images_count() -> None:
    labels = [["edema"], ["edema", "nodule"], ["ok"], ["ok", "edema"], [], ["nodule"]]
    positive, negative = exact_label_sets(labels, CLASSES, "ok")
    assert positive.nonzero().tolist() == [[0, 0], [5, 2]]
    assert negative.nonzero().tolist() == [[2, 0], [2, 1], [2, 2]]
    assert exact_label_sets([], CLASSES, "ok")[0].shape == (0, 3)


def test_the_metric_over_batches_is_scikit_learn_over_all() -> None:
    random = np.random.default_rng(3)
    pool = [["edema"], ["pneumonia"], ["ok"], ["edema", "pneumonia"]]
    labels = [pool[i] for i in random.integers(4, size=120)]
    scores = torch.from_numpy(random.integers(6, size=(120, 3)).astype(np.float32))
    metric = ClassifierAUROC(CLASSES, "ok")
    for start in range(0, 120, 17):
        metric.update(scores[start : start + 17], labels[start : start + 17])
    found = metric.compute()
    expected = []
    for c, name in enumerate(CLASSES[:2]):
        used = [i for i, names in enumerate(labels) if names in ([name], ["ok"])]
        expected.append(roc_auc_score([labels[i] == [name] for i in used], scores[used, c]))
        assert found[name] == pytest.approx(expected[-1], abs=1e-12)
        assert found[f"{name}/n"] == labels.count([name])
    assert math.isnan(found["nodule"])
    assert found["macro"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert (found["ok/n"], found["left_out"]) == (labels.count(["ok"]), labels.count(["edema", "pneumonia"]))


def test_bad_input_is_told() -> None:
    scores, sets = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UserError, match="three times"):
        class_auroc(scores, sets[:1], ~sets)
    with pytest.raises(UserError, match="boolean"):
        class_auroc(scores, sets.float(), ~sets)
    with pytest.raises(UserError, match="one set only"):
        class_auroc(scores, sets, sets)
    with pytest.raises(UserError, match="different names"):
        ClassifierAUROC(["edema", "ok"], "ok")
    with pytest.raises(UserError, match="one row an image"):
        ClassifierAUROC(CLASSES, "ok").update(scores, [["ok"]])
