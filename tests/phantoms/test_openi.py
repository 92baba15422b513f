"""Real reports read out of torchxrayvision: what is drawn from them, and what is said where they are missing."""

import re

import numpy as np
import pytest

from meddiff.common.errors import UserError
from meddiff.phantoms import PhantomCohort, PhantomOptions, openi
from meddiff.phantoms.report_words import read_sentences
from tests.builders.phantom_samples import needs_reports


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
