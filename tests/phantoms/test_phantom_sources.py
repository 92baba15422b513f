"""Text and statistics read out of torchxrayvision, and the source domain of shapes."""

import re

import numpy as np
import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.phantoms import PhantomCohort, PhantomOptions, openi, statistics
from meddiff.phantoms.anatomy import HEIGHTS, LATERAL, OWN_NORMS, sample_anatomy
from meddiff.phantoms.render import render
from meddiff.phantoms.report_words import clean, read_sentences, swap_sides

reports_missing = openi.data_file("NLMCXR_reports.tgz") is None
needs_reports = pytest.mark.skipif(reports_missing, reason="torchxrayvision's reports are not installed")
needs_masks = pytest.mark.skipif(
    openi.data_file("semantic_masks_v7labs_lungs.zip") is None, reason="torchxrayvision's masks are not installed"
)


def test_cleaning_removes_the_token_and_what_it_left_empty() -> None:
    # sentences made up for this test
    assert clean("1. Normal chest x-XXXX. 2. XXXX of XXXX. 3. XXXX small effusion on the left.") == [
        "Normal chest x-ray.",
        "Small effusion on the left.",
    ]


@pytest.mark.parametrize(
    ("text", "asserted", "denied", "doubtful"),
    [
        ("No pneumothorax or pleural effusion", set(), {"Pneumothorax", "Pleural Effusion"}, False),
        ("Cardiomegaly without edema", {"Cardiomegaly"}, {"Edema"}, False),
        ("No effusion but there is a large opacity", {"Lung Opacity"}, {"Pleural Effusion"}, False),
        ("Opacity, pneumonia or atelectasis", {"Lung Opacity", "Pneumonia", "Atelectasis"}, set(), True),
        ("The heart is enlarged", {"Cardiomegaly"}, set(), False),
        ("The heart is not enlarged", set(), {"Cardiomegaly"}, False),
        ("Resolved right pneumothorax", set(), {"Pneumothorax"}, False),
    ],
)
def test_reading_respects_negation(text: str, asserted: set[str], denied: set[str], doubtful: bool) -> None:
    found, not_found, doubt = read_sentences([text])
    assert (set(found), not_found, doubt) == (asserted, denied, doubtful)


def test_swapping_sides_twice_is_the_same_text() -> None:
    text = "Left base clear, Right upper lobe and lingula dense, right middle lobe aerated"
    assert swap_sides(text) == "Right base clear, Left upper lobe and right middle lobe dense, lingula aerated"
    assert swap_sides(swap_sides(text)) == text


@needs_reports
def test_real_reports_drive_the_rendering() -> None:
    cohort = PhantomCohort(PhantomOptions(n=600, text="open-i", resolution=64, mirrored_pairs=True))
    sources = [report is not None for report in cohort.plan.reports]
    assert np.mean(sources) > 0.6
    abnormal = [labels for labels in cohort.plan.labels if labels]
    assert np.mean([len(labels) > 1 for labels in abnormal]) >= 0.3
    seen = 0
    for index in np.flatnonzero([bool(r and r.labels) for r in cohort.plan.reports])[:80].tolist():
        sample = cohort[index]
        assert "XXXX" not in sample.impression
        assert sample.attributes["text"].startswith("open-i:")
        assert {phrase.label for phrase in sample.phrases} == set(sample.labels)
        x, _ = cohort.scene(index).anatomy.body_grid(64)
        for phrase in sample.phrases:
            assert phrase.text in sample.impression
            sides = set(re.findall(r"\b(right|left)\b", phrase.text.lower()))
            alone = sum(other.text == phrase.text for other in sample.phrases) == 1
            if len(sides) == 1 and alone and phrase.label != "Cardiomegaly" and "bilat" not in phrase.text.lower():
                mask = sample.masks[phrase.label]
                half = x > 0 if sides == {"left"} else x < 0
                assert (mask & half).any(), phrase.text
                seen += 1
    assert seen > 5


@needs_reports
def test_normal_reports_speak_of_no_finding() -> None:
    reports = openi.read_reports()
    assert reports.counts["read"] > 3900
    assert reports.counts["used"] == len(reports.normal) + len(reports.abnormal) > 2500
    for report in reports.normal:
        assert not read_sentences([report.impression])[0]


def test_missing_reports_are_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openi, "data_file", lambda name: None)
    openi.read_reports.cache_clear()
    with pytest.raises(UserError, match="pip install torchxrayvision"):
        openi.read_reports()


def test_missing_statistics_fall_back_on_own_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "data_file", lambda name: None)
    for cached in (statistics._measured_outlines, statistics._measured_boxes):
        cached.cache_clear()
    try:
        assert statistics.outline_norms("auto") is OWN_NORMS
        assert statistics.box_norms("auto") is None
        with pytest.raises(UserError, match="own"):
            statistics.outline_norms("measured")
        with pytest.raises(UserError, match="own"):
            statistics.box_norms("measured")
    finally:
        for cached in (statistics._measured_outlines, statistics._measured_boxes):
            cached.cache_clear()


def test_outline_vector_recovers_a_drawn_outline() -> None:
    rows, columns = np.mgrid[0:200, 0:220]
    height, middle, unit = 150.0, 110.0, 90.0
    v = (rows - 20) / height
    distance = np.abs(columns + 0.5 - middle) / unit
    lateral = np.interp(v, HEIGHTS, LATERAL)
    mask = (v >= 0) & (v <= 1) & (distance < lateral) & (distance > 0.2)
    vector = statistics.outline_vector(mask)
    assert vector is not None
    np.testing.assert_allclose(vector[2:6], LATERAL[2:6], atol=0.04)
    assert vector[14] == pytest.approx(height / unit, abs=0.05)
    assert statistics.outline_vector(np.zeros((50, 50), bool)) is None


@needs_masks
def test_measured_outlines_are_lungs() -> None:
    norms = statistics.outline_norms("measured")
    assert norms.source == "v7"
    rng = np.random.default_rng(0)
    for _ in range(50):
        anatomy = sample_anatomy(rng, "PA", norms)
        for lung in (anatomy.right, anatomy.left):
            assert 0.8 < lung.base < 2.3
            assert all(a < b for a, b in zip(lung.medial, lung.lateral, strict=True))


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
