"""Aligned phantoms: the same plan in one framing; without the option every cohort and its folder stay as they were."""

from dataclasses import replace

import numpy as np

from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder

OPTIONS = PhantomOptions(n=40, resolution=64)


def test_one_framing_and_different_patients() -> None:
    free, held = PhantomCohort(OPTIONS), PhantomCohort(replace(OPTIONS, aligned=True))
    scenes = [held.scene(index) for index in range(40)]
    assert {(one.anatomy.centre, one.anatomy.scale, one.anatomy.rotation) for one in scenes} == {
        ((0.5, 0.5), 0.42, 0.0)
    }
    assert len({free.scene(index).anatomy.scale for index in range(40)}) == 40
    assert len({one.anatomy.right for one in scenes}) == 40
    for index in range(40):
        assert held[index].labels == free[index].labels
        assert {box.label for box in held[index].boxes} == set(held[index].labels) - {"No Finding"}
    spread = [np.std([cohort[index].image for index in range(40)], axis=0).mean() for cohort in (held, free)]
    assert spread[0] < 0.8 * spread[1]


def test_who_does_not_ask_for_it_keeps_the_folder_made_before() -> None:
    """The digest was taken before the option was there."""
    assert phantom_folder(PhantomOptions(), "assets/phantom_vae") == "data/phantom-83e3f30437"
    assert phantom_folder(PhantomOptions(aligned=True), "assets/phantom_vae") != "data/phantom-83e3f30437"
    assert "aligned" not in PhantomOptions().told()
    assert PhantomOptions(**PhantomOptions(aligned=True).told()).aligned  # type: ignore[arg-type]
