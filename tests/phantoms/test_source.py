"""The source domain of shapes: the places of the phantoms, other words, other pictures."""

import re

import numpy as np

from meddiff.common.findings import NO_FINDING
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.render import render


def test_source_domain_has_the_same_places_and_other_words() -> None:
    chest = PhantomCohort(PhantomOptions(n=60, normal=0.0))
    shapes = PhantomCohort(PhantomOptions(n=60, normal=0.0, domain="source"))
    medical = re.compile(r"lung|lobe|heart|cardi|pleura|opacit|effusion|pneumo|edema|atelect|consolid", re.I)
    for index in range(30):
        target, source = chest[index], shapes[index]
        assert target.labels == source.labels
        assert target.attributes["findings"] == source.attributes["findings"]
        assert not medical.search(source.impression), source.impression
        x, _ = shapes.scene(index).anatomy.body_grid(128)
        for label, fact in source.attributes["findings"].items():
            assert label in {phrase.label for phrase in source.phrases}
            for side, *_ in fact["sites"]:
                assert (source.masks[label] & ((x > 0) == (side == "left"))).any(), (index, label)


def test_shift_is_a_dial() -> None:
    steps = [PhantomCohort(PhantomOptions(n=12, domain="source", shift=s)) for s in (0.0, 0.5, 1.0)]
    plain = PhantomCohort(PhantomOptions(n=12))
    for index in range(12):
        if plain[index].labels != [NO_FINDING]:
            continue
        bare = plain[index].image.astype(float)
        distance = [np.abs(cohort[index].image - bare).mean() for cohort in steps]
        assert distance[0] < distance[1] < distance[2]
    a, b = (PhantomCohort(PhantomOptions(n=4, shift=s, normal=0.0)) for s in (0.0, 0.8))
    assert np.abs(a[1].image.astype(float) - b[1].image).mean() > 5
    np.testing.assert_array_equal(a[1].masks[a[1].labels[0]], b[1].masks[b[1].labels[0]])


def test_source_scene_renders_at_other_resolutions() -> None:
    scene = PhantomCohort(PhantomOptions(n=4, domain="source", normal=0.0)).scene(2)
    assert render(scene, 64).image.shape == (64, 64)
    assert render(scene, 256).image.shape == (256, 256)
