"""The whole way of PadChest-GR, by phantoms in its format: files, shards, grounding, and the findings that reports deny."""

import json
from pathlib import Path

import numpy as np
import pytest

from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.evaluation.absent import Absent, AbsentOptions
from meddiff.evaluation.denied import denied_findings
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import grounding_samples
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.padchest_gr import DENIALS, IMAGES, LABELS, REPORTS, write_padchest_gr
from meddiff.preparation.cohorts.padchest_gr import PadchestGrOptions
from meddiff.preparation.cohorts.padchest_gr_labels import CLASSES, classes_of
from meddiff.preparation.images import read_image
from meddiff.preparation.prepare_cohort import prepare_reading, read_cohort
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.sample import CohortSample
from tests.builders.command import call
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, rewrite_split, run_part
from tests.builders.prepared_folder import HERE

OPTIONS = PhantomOptions(n=16, resolution=64, val=1, grounding=12, fidelity=0)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_padchest_gr(tmp_path_factory.mktemp("padchest") / "twin", OPTIONS)


@pytest.fixture(scope="module")
def truth() -> dict[str, CohortSample]:
    return {sample.key: sample for sample in PhantomCohort(OPTIONS)}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, twin: Path, vae_folder: Path) -> LatentShardsDataset:
    out = tmp_path_factory.mktemp("padchest") / "shards"
    reading = read_cohort("padchest-gr", twin, PadchestGrOptions(readers="first"))
    prepare_reading(reading, out, str(vae_folder), 64, HERE, show_progress=False)
    return LatentShardsDataset(out, "grounding")


def test_words_of_the_twin_are_those_that_the_reader_knows() -> None:
    assert {label: CLASSES[written] for label, written in LABELS.items()} == {label: (label,) for label in FINDINGS}
    assert {label: classes_of(text, (), False) for label, text in DENIALS.items()} == {one: (one,) for one in FINDINGS}


def test_the_command_reads_it_under_the_name_of_the_issue(twin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "prepare", "padchest_gr", "--root", str(twin), "--dry_run")
    assert code == 0, err
    assert "grounding 12  train 3  val 1" in out


def test_pictures_boxes_and_denials_are_those_of_the_phantoms(
    split: LatentShardsDataset, twin: Path, truth: dict[str, CohortSample]
) -> None:
    assert len(split) == 12
    boxes = 0
    for index, key in enumerate(split.keys):
        sample, phantom = split.metadata(index), truth[key]
        stored, drawn = np.asarray(split.image(index)).astype(float), phantom.image.astype(float)
        assert np.corrcoef(stored.ravel(), drawn.ravel())[0, 1] > 0.97
        assert stored.std() > 0.8 * drawn.std()
        assert read_image(twin / IMAGES / f"{key}.png").std() < 0.4 * drawn.std(), (
            "the control: scaled by the whole range"
        )
        found = [(one["label"], one["x"], one["y"], one["w"], one["h"]) for one in sample["boxes"]]
        assert len(found) == len(phantom.boxes)
        for (label, *place), box in zip(
            sorted(found), sorted(phantom.boxes, key=lambda b: (b.label, b.x)), strict=True
        ):
            assert label == box.label
            assert place == pytest.approx([box.x, box.y, box.w, box.h], abs=1e-3)
        boxes += len(found)
        denials = [one for one in sample["phrases"] if not one["boxes"]]
        assert len(denials) == 3
        assert set(sample["attributes"]["denied"]) == {one["label"] for one in denials}
        assert not set(sample["attributes"]["denied"]) & set(phantom.labels)
        assert set(sample["labels"]) == set(phantom.labels)
    assert boxes > 10


def test_the_second_reader_is_there_and_near(twin: Path) -> None:
    entries = json.loads((twin / REPORTS).read_text())
    findings = [one for entry in entries for one in entry["findings"]]
    assert any("labels" not in one for one in findings), "keys are left out as in the real file"
    counts = read_cohort("padchest-gr", twin).options["counts"]
    assert counts["sentences with boxes of two readers"] == sum(bool(one.get("extra_boxes")) for one in findings) > 3
    assert 0.6 < counts["agreement of the readers (mean IoU)"] < 0.99
    first, both = (read_cohort("padchest-gr", twin, PadchestGrOptions(readers=r)) for r in ("first", "both"))
    assert sum(len(one.boxes) for one in both.records) > sum(len(one.boxes) for one in first.records)


def test_grounding_and_absent_findings_read_it(
    split: LatentShardsDataset, vae_folder: Path, truth: dict[str, CohortSample], tmp_path: Path
) -> None:
    model = make_attentive_model(8, vae=str(vae_folder))
    kept, left_out = grounding_samples(split, list(FINDINGS))
    assert len(kept) == sum(bool(one.boxes) for key in split.keys for one in truth[key].phrases)
    assert {one.reason for one in left_out} == {"no box"}
    assert len(left_out) == 3 * len(split)
    found = Grounding(GroundingOptions(timesteps=1)).run(model, split, None, Ranks())
    assert len(found.tables["grounding"].rows) == len(kept)

    measurement = Absent(AbsentOptions(timesteps=1))
    with CountedPasses(model) as counted:
        figures = run_part(measurement, model, split, tmp_path)
    assert counted.samples == measurement.cost(model, split)
    rows = measurement.run(model, split, tmp_path, Ranks()).tables["absent"].rows
    asked = {(str(row["key"]), str(row["class"])) for row in rows if row["denied"]}
    known = {one.label for one in kept}
    denied = {
        (key, label)
        for index, key in enumerate(split.keys)
        for label in split.metadata(index)["attributes"]["denied"]
        if label in known
    }
    assert asked == denied
    assert all(not row["present"] for row in rows if row["denied"])
    assert len({(row["key"], row["class"]) for row in rows if not row["present"]}) == figures["n_absent"]
    healthy = {key for key in split.keys if truth[key].labels == [NO_FINDING]}
    assert healthy & {key for key, _ in asked}, "healthy images are asked for what their reports deny"
    few = denied_findings(split, kept, limit=4)
    assert len(few) == 4
    assert {(image.key, one.label) for image, one in few} <= denied
    assert len({one.label for _, one in few}) == 4, "balanced over classes"

    def forget(name: str, payload: bytes) -> bytes:
        if not name.endswith(".json"):
            return payload
        sample = json.loads(payload)
        sample["attributes"].pop("denied")
        return json.dumps(sample).encode()

    rewrite_split(split, tmp_path / "silent", forget)
    silent = LatentShardsDataset(tmp_path / "silent", "grounding")
    pairs = measurement.askings(silent)
    assert not healthy & {image.key for image, _ in pairs}, "the control: reports that deny nothing"
    assert all(len(image.boxes) for image, _ in pairs)
