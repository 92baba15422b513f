"""Pixels of a phantom: what a finding and a confounder change, and at which sizes."""

import numpy as np
import pytest

from meddiff.common.findings import FINDINGS
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.chest import Chest
from meddiff.phantoms.options import CONFOUNDERS
from meddiff.phantoms.render import diseased, render
from meddiff.phantoms.sampling import sample_scene


@pytest.mark.parametrize("label", FINDINGS)
def test_pixels_change_inside_the_mask_and_hardly_outside(label: str) -> None:
    inside, outside = [], []
    for k in range(12):
        others = ("Lung Opacity",) if k % 3 == 0 and label != "Lung Opacity" else ()
        scene = sample_scene(("test", label, k), (label, *others))
        with_it, without = render(scene, 128), render(scene.without(label), 128)
        mask = with_it.masks[label]
        change = np.abs(with_it.image.astype(float) - without.image)
        if label == "Cardiomegaly":  # the middle of the heart was heart before; its rim is what is new
            inside.append(change[mask & (change > 2)].mean())
        else:
            inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
        assert change[mask].sum() > 0.7 * change.sum(), k
    assert np.mean(inside) > 15
    assert np.mean(outside) < 0.6


@pytest.mark.parametrize("name", CONFOUNDERS)
def test_confounders_change_pixels_in_their_mask_only(name: str) -> None:
    for k in range(6):
        scene = sample_scene(("test", "confounder", k), ("Pneumonia",), confounders=(name,))
        with_it, without = render(scene, 128), render(scene.without_confounders(name), 128)
        change = np.abs(with_it.image.astype(float) - without.image)
        mask = with_it.masks[name]
        assert 0.001 < mask.mean() < 0.25
        assert change[mask].sum() > 0.75 * change.sum()
        assert set(with_it.masks) == {"Pneumonia", name}
        np.testing.assert_array_equal(with_it.masks["Pneumonia"], without.masks["Pneumonia"])


def test_fields_are_single_precision() -> None:
    for label in FINDINGS:
        scene = sample_scene(("test", "precision"), (label,))
        density, _ = diseased(scene, Chest(scene.anatomy, 64, scene.address))
        assert density.dtype == np.float32, label


def test_any_multiple_of_eight_works() -> None:
    cohort = PhantomCohort(PhantomOptions(n=10, resolution=72, normal=0.0))
    large = PhantomCohort(PhantomOptions(n=10, resolution=144, normal=0.0))
    for index in range(10):
        small_one, large_one = cohort[index], large[index]
        assert small_one.impression == large_one.impression
        for label in small_one.labels:
            halved = large_one.masks[label].reshape(72, 2, 72, 2).mean((1, 3)) > 0.5
            union = (halved | small_one.masks[label]).sum()
            assert (halved & small_one.masks[label]).sum() > 0.5 * union
