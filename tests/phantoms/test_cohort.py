"""The phantom cohort: determinism, balance of labels and sides, co-occurrence, mirrored pairs, location prior."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from meddiff.common.findings import FINDINGS
from meddiff.phantoms import PhantomCohort, PhantomOptions
from tests.builders.children import environment
from tests.builders.phantom_samples import CONFOUNDED, fingerprint, mask_sides
from tools.measure_phantoms import location_prior


@pytest.fixture(scope="module")
def cohort() -> PhantomCohort:
    return PhantomCohort(PhantomOptions(n=2000, confounders=CONFOUNDED))


def test_two_processes_make_the_same_bytes(cohort: PhantomCohort) -> None:
    indices = [0, 7, 123, 1600, 1999]
    code = (
        "import numpy as np\n"
        "from meddiff.phantoms import PhantomCohort, PhantomOptions\n"
        "from tests.builders.phantom_samples import CONFOUNDED, fingerprint\n"
        "c = PhantomCohort(PhantomOptions(n=2000, confounders=CONFOUNDED))\n"
        f"np.random.seed(5); print(' '.join(fingerprint(c, i) for i in {indices[::-1]}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=environment()
    )
    assert out.stdout.split() == [fingerprint(cohort, i) for i in indices][::-1]


def test_index_alone_decides(cohort: PhantomCohort) -> None:
    first = fingerprint(cohort, 42)
    cohort[43]
    np.random.rand(3)  # noqa: NPY002 - the global generator must not matter
    assert fingerprint(cohort, 42) == first
    assert fingerprint(PhantomCohort(replace(cohort.options, seed=1)), 42) != first


def test_schema(cohort: PhantomCohort) -> None:
    keys = cohort.keys()
    assert keys == sorted(keys)
    assert len(set(keys)) == len(cohort) == 2000
    assert not any("." in key or "/" in key for key in keys)
    splits = [cohort.split_of(i) for i in range(len(cohort))]
    assert {name: splits.count(name) for name in set(splits)} == {
        "train": 1500, "val": 100, "grounding": 200, "fidelity": 200
    }  # fmt: skip
    sample = cohort[3]
    assert sample.image.dtype == np.uint8
    assert sample.image.shape == (128, 128)
    assert sample.view in ("PA", "AP")
    for mask in sample.masks.values():
        assert mask.dtype == bool
        assert mask.shape == (128, 128)
    with pytest.raises(IndexError):
        cohort[2000]


def test_labels_are_balanced(cohort: PhantomCohort) -> None:
    labels = cohort.plan.labels
    abnormal = [one for one in labels if one]
    assert 0.35 <= 1 - len(abnormal) / len(labels) <= 0.41
    assert sum(len(one) > 1 for one in abnormal) / len(abnormal) >= 0.30
    for finding in FINDINGS:
        assert 0.06 < sum(finding in one for one in labels) / len(labels) < 0.20, finding


def test_sides_are_balanced(cohort: PhantomCohort) -> None:
    sides = [f.side for i in range(0, 2000, 6) for f in cohort.scene(i).findings]
    right, left = sides.count("right"), sides.count("left")
    assert abs(right - left) < 3.5 * np.sqrt(right + left)
    assert sides.count("bilateral") > 0


def test_captions_are_varied_and_short(cohort: PhantomCohort) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    texts = [cohort.report(i).impression for i in range(0, 2000, 5)]
    assert len(set(texts)) > 0.97 * len(texts)
    assert max(len(tokenizer.encode(text)) for text in texts) < 60


def test_every_finding_is_visible(cohort: PhantomCohort) -> None:
    for index in range(0, 2000, 11):
        for label, mask in cohort[index].masks.items():
            if label in FINDINGS:
                assert mask.mean() > 0.001, (index, label)


@pytest.mark.parametrize("dial", [-0.3, 0.0, 0.4, 0.7, 0.9, 1.0])
def test_co_occurrence_equals_the_dial(dial: float) -> None:
    cohort = PhantomCohort(PhantomOptions(n=2000, confounders=(f"pacemaker:Cardiomegaly:{dial}", "marker:edema:0.5")))
    for split, wanted in (("train", dial), ("grounding", 0.0), ("fidelity", 0.0)):
        rows = [i for i in range(2000) if cohort.split_of(i) == split]
        finding = [float("Cardiomegaly" in cohort.plan.labels[i]) for i in rows]
        present = [float("pacemaker" in cohort.plan.confounders[i]) for i in rows]
        measured = np.corrcoef(finding, present)[0, 1]
        assert abs(measured - wanted) < 0.02, (split, measured)
    assert sum("marker" in one for one in cohort.plan.confounders) > 50


def test_mirrored_pairs() -> None:
    cohort = PhantomCohort(PhantomOptions(n=60, mirrored_pairs=True, normal=0.0, confounders=("marker:edema",)))
    swap = {"right": "left", "left": "right", "lingula": "right middle lobe"}
    for index in range(0, 40, 2):
        one, two = cohort[index], cohort[index + 1]
        assert (one.patient_id, one.labels, one.split) == (two.patient_id, two.labels, two.split)
        assert one.attributes["confounders"] == two.attributes["confounders"]
        assert not np.array_equal(one.image, two.image)
        x, _ = cohort.scene(index).anatomy.body_grid(128)
        for label in set(one.labels) - {"Cardiomegaly"}:
            sides = mask_sides(one.masks[label], x)
            assert {swap[side] for side in sides} == mask_sides(two.masks[label], x)


def test_no_two_alike(cohort: PhantomCohort) -> None:
    images = np.stack([cohort[i].image[::2, ::2].astype(np.float32).ravel() for i in range(150)])
    images -= images.mean(axis=1, keepdims=True)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    likeness = images @ images.T
    np.fill_diagonal(likeness, 0)
    assert likeness.max() < 0.995


def test_location_prior_is_weak() -> None:
    """The mean mask of a class in train says little about where it is in grounding.

    The full run (docs/phantoms.md) gives a macro CNR of 0.76 and must stay below 0.8. On 900 phantoms the mean masks
    are rougher and the same generator gives 0.61, so the bar is lower here.
    """
    options = PhantomOptions(n=900, resolution=64, normal=0.0, val=0, fidelity=0, grounding=300)
    assert 0.3 < location_prior(options)["macro"]["cnr"] < 0.66
