"""Caption, labels, sides, places, severities and masks of a phantom say the same (issue 3), as an own reader finds."""

import re
from dataclasses import replace

import numpy as np
import pytest

from meddiff.common.findings import NO_FINDING
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.shards.sample import CohortSample
from tests.builders.caption_reader import NAMES, SHAPES, is_consistent, read
from tests.builders.phantom_samples import mask_sides, needs_reports

ZONED = ("Atelectasis", "Consolidation", "Lung Opacity", "Pneumonia")
#: Heights of the lung (0 apex .. 1 diaphragm) between which the middle of a mask in a zone lies.
HEIGHTS = {"upper": (0, 0.5), "middle": (0.2, 0.8), "lower": (0.4, 1.1)}


def disagreements(text: str, sample: CohortSample, complete: bool, called: dict[str, str] = NAMES) -> list[str]:
    """What ``text`` says otherwise than the labels and facts of the sample; ``complete``: it says everything."""
    said, denied = read(text, called)
    facts = sample.attributes["findings"]
    wrong = [f"both said and denied: {label}" for label in set(said) & denied]
    wrong += [f"not there: {label}" for label in set(said) - set(facts)]
    for label in set(said) & set(facts):
        here, fact = said[label], facts[label]
        sites = {tuple(site) for site in fact["sites"]}
        sides = {site[0] for site in sites}
        if label != "Cardiomegaly":
            whole = here.sides == sides if here.all_sides or complete else here.sides <= sides
            wrong += [] if whole else [f"{label} on {sorted(sides)}, said {sorted(here.sides)}"]
        if (complete or here.severities) and fact["severity"] not in here.severities:
            wrong.append(f"{label} is {fact['severity']}, said {sorted(here.severities)}")
        if complete and len(here.severities) > 1:
            wrong.append(f"{label} said to be {sorted(here.severities)}")
        if label == "Pneumothorax" and complete and not here.shape <= {fact["place"]}:
            wrong.append(f"{label} is {fact['place']}, said {sorted(here.shape)}")
        for side, zone in here.places if label in ZONED else ():
            if not any(zone == z and side in ("", s) for s, z in sites):
                wrong.append(f"{label} at {sorted(sites)}, said {side} {zone}")
    return wrong


def check_sample(cohort: PhantomCohort, index: int) -> CohortSample:
    """Assert that all parts of one phantom agree; returns it."""
    sample, options = cohort[index], cohort.options
    called = SHAPES if options.domain == "source" else NAMES
    own = sample.attributes["text"] == "grammar"
    text, facts = sample.impression, sample.attributes["findings"]
    said, _ = read(text, called)
    assert sorted(said) == [label for label in sample.labels if label != NO_FINDING] == sorted(facts), text
    assert not disagreements(text, sample, own, called), text
    assert is_consistent(text), text
    # every finding has its phrase, its boxes and its mask
    assert {phrase.label for phrase in sample.phrases} == set(said) == {box.label for box in sample.boxes}
    for phrase in sample.phrases:
        assert phrase.text in text
        assert phrase.label in read(phrase.text, called)[0], phrase.text
        assert not disagreements(phrase.text, sample, own, called), phrase.text
        assert phrase.boxes
    anatomy = cohort.scene(index).anatomy
    x, y = anatomy.body_grid(options.resolution)
    for label, fact in facts.items():
        if label == "Cardiomegaly":
            continue
        assert mask_sides(sample.masks[label], x) == {site[0] for site in fact["sites"]}, text
        for side, zone in fact["sites"] if label in ZONED else ():
            part = sample.masks[label] & ((x > 0) == (side == "left"))
            low, high = HEIGHTS[zone]
            assert low < float(y[part].mean()) / anatomy.lung(side).base < high, text
    return sample


def test_all_parts_agree() -> None:
    cohort = PhantomCohort(PhantomOptions(n=2000, resolution=64))
    for index in range(0, 2000, 10):
        check_sample(cohort, index)


@needs_reports
def test_all_parts_agree_with_real_reports() -> None:
    cohort = PhantomCohort(PhantomOptions(n=2000, resolution=64, text="open-i"))
    abnormal = [k for k, report in enumerate(cohort.plan.reports) if report and report.labels]
    for index in [*abnormal[:160], *range(0, 2000, 50)]:
        check_sample(cohort, index)


def test_all_parts_agree_for_shapes_and_twins() -> None:
    for options in (
        PhantomOptions(n=60, resolution=64, domain="source"),
        PhantomOptions(n=60, resolution=64, mirrored_pairs=True, normal=0.0),
    ):
        for index in range(60):
            check_sample(PhantomCohort(options), index)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(PhantomOptions(seed=11), id="grammar"),
        pytest.param(PhantomOptions(seed=12, text="open-i"), id="open-i", marks=needs_reports),
        pytest.param(PhantomOptions(seed=13, text="open-i", mirrored_pairs=True), id="twins", marks=needs_reports),
        pytest.param(PhantomOptions(seed=14, domain="source"), id="shapes"),
    ],
)
def test_all_parts_agree_on_2000(options: PhantomOptions) -> None:
    cohort = PhantomCohort(replace(options, n=2000, resolution=64))
    area: dict[tuple[str, str], list[float]] = {}
    for index in range(2000):
        sample = check_sample(cohort, index)
        thorax = cohort.scene(index).anatomy.scale ** 2
        for label, fact in sample.attributes["findings"].items():
            area.setdefault((label, fact["severity"]), []).append(float(sample.masks[label].mean()) / thorax)
    for label in {label for label, _ in area}:
        mild, moderate, severe = (np.mean(area[label, one]) for one in ("mild", "moderate", "severe"))
        assert mild < moderate < severe, label


@pytest.mark.parametrize(
    ("text", "findings", "denied"),
    [
        ("No effusion or edema. Mild cardiomegaly.", {"Cardiomegaly"}, {"Pleural Effusion", "Edema"}),
        ("The heart is not enlarged. Large pericardial effusion.", set(), {"Cardiomegaly"}),
        ("No change in a small left effusion.", {"Pleural Effusion"}, set()),
        ("No cardiomegaly with bilateral effusions.", {"Pleural Effusion"}, {"Cardiomegaly"}),
        ("1. Costophrenic angles are sharp. 2. Right pneumonia.", {"Pneumonia"}, {"Pleural Effusion"}),
        ("A right pneumothorax is not seen.", set(), {"Pneumothorax"}),
        ("Right pneumothorax, not seen previously.", {"Pneumothorax"}, set()),
        ("Pneumonic infiltrate.", {"Pneumonia"}, set()),
    ],
)
def test_the_reader_reads_what_is_there(text: str, findings: set[str], denied: set[str]) -> None:
    said, not_there = read(text)
    assert (set(said), not_there) == (findings, denied)


def test_the_reader_tells_two_findings_of_a_sentence_apart() -> None:
    said, _ = read("Small bibasilar atelectasis with a large opacity in the left upper zone and the right lower lobe.")
    assert said["Atelectasis"].places == {("right", "lower"), ("left", "lower")}
    assert said["Atelectasis"].severities == {"mild"}
    assert said["Lung Opacity"].places == {("left", "upper"), ("right", "lower")}
    assert said["Lung Opacity"].severities == {"severe"}


def test_the_reader_finds_errors() -> None:
    """A sentence that is made wrong in one word is found out: the agreement above is not an empty one."""
    cohort = PhantomCohort(PhantomOptions(n=600, resolution=64, normal=0.0))
    swaps = {
        "side": {"right": "left", "left": "right"},
        "zone": {"upper": "lower", "lower": "upper", "basilar": "apical"},
        "severity": {"mild": "severe", "moderate": "tiny", "severe": "mild", "large": "small", "small": "large"},
        "finding": {"effusion": "pneumothorax", "pneumothorax": "effusion", "atelectasis": "edema", "opacity": "edema"},
    }
    tried = dict.fromkeys(swaps, 0)
    for index in range(0, 600, 6):
        sample = cohort[index]
        text = sample.phrases[0].text
        if re.search("greater|worse|more", text):  # "on both sides, worse on the left": only the degree is wrong
            continue
        for kind, table in swaps.items():
            word = next((word for word in table if re.search(rf"\b{word}\b", text)), None)
            other = table.get(word or "")
            if other and not {other.title(), f"Pleural {other.title()}"} & set(sample.labels):
                tried[kind] += 1
                wrong = re.sub(rf"\b{word}\b", other, text, count=1)
                assert disagreements(wrong, sample, complete=True), wrong
    assert min(tried.values()) >= 10, tried
