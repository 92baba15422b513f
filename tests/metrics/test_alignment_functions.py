"""Alignment and areas by image against the values of the specification, brute force, and what published code gets wrong."""

import itertools

import numpy as np
import pytest
import torch

from meddiff.common.errors import UserError
from meddiff.metrics.functional.alignment import (
    balanced_agreement,
    best_thresholds,
    label_pearson,
    label_set_scores,
    mean_over_sets,
    retrieved,
)
from meddiff.metrics.functional.class_auroc import class_auroc, macro_auroc_by_image


def test_the_specification_s_pearson_and_retrieval() -> None:
    p = torch.tensor([[0.9, 0.2], [0.3, 0.6], [0.1, 0.7]])
    assert label_pearson(p, torch.tensor([[1, 0], [0, 1], [0, 1]]).bool()) == pytest.approx(0.929981, abs=1e-6)
    first, reciprocal, margin = retrieved(
        torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.4, 0.5], [0.1, 0.6, 0.7]]), torch.arange(3)
    )
    assert float(first.mean()) == pytest.approx(0.666667, abs=1e-6)
    assert float(reciprocal.mean()) == pytest.approx(0.833333, abs=1e-6)
    assert float(margin.mean()) == pytest.approx(0.366667, abs=1e-6)


def test_ties_share_the_first_place_and_what_is_not_finite_has_none() -> None:
    first, reciprocal, _ = retrieved(torch.tensor([[1.0, 1.0, 0.0], [1.0, float("nan"), 0.0]]), torch.tensor([0, 0]))
    assert first.tolist()[0] == 0.5
    assert reciprocal.tolist()[0] == pytest.approx(1 / 1.5)
    assert first.isnan().tolist() == [False, True]
    with pytest.raises(UserError, match="K of 2 or more"):
        retrieved(torch.ones(3, 1), torch.zeros(3, dtype=torch.long))


def test_a_generator_of_healthy_lungs_alone_is_at_chance_and_not_at_their_share() -> None:
    """Over images it is right for each healthy prompt, which is what a mean over generations says of it."""
    labels = torch.tensor([[False, False]] * 60 + [[True, False]] * 20 + [[False, True]] * 15 + [[True, True]] * 5)
    images = torch.full((100, 2), 0.05)
    sets, own = labels.unique(dim=0, return_inverse=True)
    first = retrieved(label_set_scores(images, torch.tensor([0.25, 0.2]), sets), own).first
    assert float(first.mean()) == pytest.approx(0.6), "the published average"
    assert mean_over_sets(first, own.tolist()) == pytest.approx(1 / 4)
    assert label_pearson(images + 0.01 * torch.rand(100, 2), labels) < 0.2
    noise = torch.rand(100, 2)
    assert label_pearson(torch.stack([0.9 * torch.ones(100), 0.1 * noise[:, 0]], dim=1), labels) > 0.05, (
        "blind, and above 0 because one class is more frequent: read it beside the shuffled prompts"
    )


def test_without_the_prior_the_commonest_set_is_everyone_s() -> None:
    p = torch.tensor([[0.3, 0.02]])  # much for a class that is had by one in twenty
    sets = torch.tensor([[False, False], [True, False]])
    prior = torch.tensor([0.05, 0.05])
    plain = label_set_scores(p, torch.full((2,), 0.5), sets)
    ours = label_set_scores(p, prior, sets)
    assert (int(plain.argmax()), int(ours.argmax())) == (0, 1)


def test_thresholds_are_youden_s_and_agreement_does_not_follow_frequency() -> None:
    rng = np.random.default_rng(0)
    scores, labels = torch.from_numpy(rng.normal(size=(40, 2))), torch.from_numpy(rng.random((40, 2)) < 0.3)
    found = best_thresholds(scores, labels)
    for c in range(2):
        cuts = scores[:, c].tolist()
        gains = [
            float((scores[labels[:, c], c] >= cut).double().mean() - (scores[~labels[:, c], c] >= cut).double().mean())
            for cut in cuts
        ]
        mine = float(
            (scores[labels[:, c], c] >= found[c]).double().mean()
            - (scores[~labels[:, c], c] >= found[c]).double().mean()
        )
        assert mine == pytest.approx(max(gains))
    nothing = torch.zeros(40, 2)
    assert balanced_agreement(nothing, labels, torch.ones(2)) == 0.5, "always healthy is right for seven in ten"
    assert best_thresholds(scores, torch.zeros(40, 2).bool()).isnan().all()
    assert np.isnan(balanced_agreement(scores, torch.zeros(40, 2).bool(), found))


def test_a_class_without_positives_is_undefined_and_takes_no_other_class_s_area() -> None:
    """Published code keeps the value of the class before."""
    scores, positive = torch.tensor([[0.9, 0.1], [0.1, 0.2]]), torch.tensor([[True, False], [False, False]])
    assert class_auroc(scores, positive, ~positive).isnan().tolist() == [False, True]
    assert macro_auroc_by_image(scores, positive, [0, 1]).isnan().all()
    assert float(macro_auroc_by_image(scores, positive, [0]).mean()) == 1


def test_areas_by_image_have_the_area_s_mean_and_the_jackknife_s_variance() -> None:
    rng = np.random.default_rng(1)
    labels = torch.from_numpy(rng.random((60, 3)) < 0.4)
    scores = torch.from_numpy(rng.normal(size=(60, 3)).round(1)) + labels  # with ties
    found = macro_auroc_by_image(scores, labels, [0, 2])

    def area(keep: list[int]) -> float:
        pairs = [
            (float(s > t) + float(s == t) / 2)
            for c in (0, 2)
            for s, t in itertools.product(
                scores[keep][labels[keep][:, c], c].tolist(), scores[keep][~labels[keep][:, c], c].tolist()
            )
        ]
        count = [int(labels[keep][:, c].sum()) * int((~labels[keep][:, c]).sum()) for c in (0, 2)]
        return (sum(pairs[: count[0]]) / count[0] + sum(pairs[count[0] :]) / count[1]) / 2

    assert float(found.mean()) == pytest.approx(area(list(range(60))), abs=1e-12)
    without = np.array([area([i for i in range(60) if i != out]) for out in range(60)])
    jackknife = 59 / 60 * float(((without - without.mean()) ** 2).sum())
    assert float(found.var()) / 60 == pytest.approx(jackknife, rel=0.05)
