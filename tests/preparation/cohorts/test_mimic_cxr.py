"""MIMIC-CXR-JPG: which images are used and why not, texts, splits, and the fidelity set. All patients are made up."""

from collections import Counter
from pathlib import Path

import pytest

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.mimic_cxr import MimicCxrOptions, read
from meddiff.preparation.records import Reading
from meddiff.preparation.reports_text import PAPER, TextRules
from tests.builders.mimic_cxr_tree import MimicTree, dicom_id, ugly_tree
from tests.builders.readings import by_key, rule_of, splits_of_patients


def steps(reading: Reading) -> dict[str, int]:
    """Rule -> how many it left."""
    return {row[0]: row[1] for row in reading.funnel.rows()}


def removed_by_rules(reading: Reading) -> dict[str, int]:
    return {rule: removed for rule, _, removed in reading.funnel.rows() if removed}


def test_every_image_is_used_or_says_why_not(tmp_path: Path) -> None:
    tree = ugly_tree()
    reading = read(tree.write(tmp_path), MimicCxrOptions(fidelity=2, no_finding_share=0.0))
    used = {
        number: by_key(reading)[dicom_id(number)].split
        for number in range(1, 19)
        if dicom_id(number) in by_key(reading)
    }
    assert used == {1: "train", 3: "train", 8: "train", 9: "val", 15: "val", 16: "fidelity"}
    reasons = rule_of(reading)
    expected = {
        2: "view is not PA or AP", 4: "view is not PA or AP", 5: "no report", 6: "no impression",
        7: "impression shorter than 8 characters", 10: "official test split", 11: "no official split",
        12: "MS-CXR image", 13: "other image of a patient of MS-CXR", 14: "patient in two official splits",
        17: "p19 image not drawn for the fidelity set", 18: "p19 image not drawn for the fidelity set",
    }  # fmt: skip
    assert {number: reasons[dicom_id(number)] for number in expected} == expected
    assert reasons["../../../etc/passwd"] == reasons[dicom_id(99)] == "malformed identifiers"
    assert reasons[dicom_id(1)] == "repeated dicom_id"
    assert len(reading.records) + len(reading.rejected) == len(tree.images)
    assert removed_by_rules(reading) == Counter(one.rule for one in reading.rejected)
    assert steps(reading)["impression shorter than 8 characters"] == 13
    assert reading.options["counts"] == {"train": 3, "val": 2, "fidelity": 1}
    assert reading.options["paper_train"] == 162_651


def test_a_record_holds_path_text_view_and_labels(tmp_path: Path) -> None:
    record = by_key(read(ugly_tree().write(tmp_path)))[dicom_id(1)]
    assert record.path == f"files/p10/p10000032/s50414267/{dicom_id(1)}.jpg"
    assert record.impression == "No acute disease."
    assert (record.view, record.patient_id, record.labels) == ("PA", "10000032", ("Edema",))
    assert record.attributes == {
        "study_id": "50414267", "uncertain": ["Pneumonia"], "other_labels": ["Fracture"], "impression_from": "heading",
    }  # fmt: skip


def test_records_are_sorted_and_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    tree = MimicTree()
    rng = generator(5, "mimic tree")
    for number in range(1, 400):
        patient = int(rng.choice([10, 15, 19])) * 1_000_000 + int(rng.integers(60))
        split = str(rng.choice(["train", "train", "train", "validate", "test"]))
        tree.add(number, patient, 50_000_000 + number, split=split, Edema=str(rng.choice(["1.0", "", "0.0"])))
    for number in (3, 50, 77):
        tree.hold_out(number)
    root = tree.write(tmp_path)
    for val in ("official", "patients"):
        reading = read(root, MimicCxrOptions(val=val, val_fraction=0.3, fidelity=20))
        keys = [record.key for record in reading.records]
        assert keys == sorted(set(keys))
        splits = splits_of_patients(reading)
        assert all(len(one) == 1 for one in splits.values())
        assert set().union(*splits.values()) == {"train", "val", "fidelity"}
        held = {row["path"].split("/")[2][1:] for row in tree.phrases}
        assert held.isdisjoint(splits)
        assert {patient for patient, one in splits.items() if one == {"fidelity"}} == {
            p for p in splits if p[:2] == "19"
        }
        assert len(reading.records) + len(reading.rejected) == 399


def test_ms_cxr_images_stay_when_asked(tmp_path: Path) -> None:
    root = ugly_tree().write(tmp_path)
    (root / "MS_CXR_Local_Alignment_v1.0.0.csv").unlink()
    with pytest.raises(UserError, match="hold_out_ms_cxr"):
        read(root)
    assert dicom_id(12) in by_key(read(root, MimicCxrOptions(hold_out_ms_cxr=False)))


def fidelity_tree(findings: int, normal: int, nothing: int) -> MimicTree:
    tree = MimicTree()
    for number in range(findings + normal + nothing):
        labels = {"Edema": "1.0"} if number < findings else {"No_Finding": "1.0"} if number < findings + normal else {}
        tree.add(number, 19_000_000 + number, 50_000_000 + number, **labels)
    return tree


def test_no_finding_is_thinned_in_the_fidelity_set(tmp_path: Path) -> None:
    root = fidelity_tree(100, 200, 30).write(tmp_path)
    reading = read(root, MimicCxrOptions(fidelity=90))
    assert Counter(record.labels for record in reading.records) == {("Edema",): 80, (NO_FINDING,): 10}
    assert reading.records == read(root, MimicCxrOptions(fidelity=90)).records
    others = {record.key for record in read(root, MimicCxrOptions(fidelity=90, seed=1)).records}
    assert others != {record.key for record in reading.records}
    # too few findings: a smaller set, not one of healthy chests
    assert Counter(record.labels for record in read(root, MimicCxrOptions(fidelity=180)).records) == {
        ("Edema",): 100, (NO_FINDING,): 20,
    }  # fmt: skip
    assert read(root, MimicCxrOptions(fidelity=0)).records == []


def test_one_image_less_changes_one_image_of_the_fidelity_set(tmp_path: Path) -> None:
    tree = fidelity_tree(100, 0, 0)
    before = set(by_key(read(tree.write(tmp_path / "a"), MimicCxrOptions(fidelity=40))))
    gone = min(before)
    tree.images = [image for image in tree.images if image["dicom_id"] != gone]
    after = set(by_key(read(tree.write(tmp_path / "b"), MimicCxrOptions(fidelity=40))))
    assert before - after == {gone}
    assert len(after - before) == 1


def test_a_study_without_a_row_of_labels_is_kept_without_labels(tmp_path: Path) -> None:
    tree = ugly_tree()
    del tree.labels["50414267"]
    assert by_key(read(tree.write(tmp_path)))[dicom_id(1)].labels == ()


def test_the_published_text_rule_glues_words(tmp_path: Path) -> None:
    tree = MimicTree()
    tree.add(1, 10000032, 50000001, report="IMPRESSION:\nNo acute\ndisease.")
    root = tree.write(tmp_path)
    assert read(root, MimicCxrOptions(text=PAPER)).records[0].impression == "No acutedisease."
    assert read(root, MimicCxrOptions(text=TextRules())).records[0].impression == "No acute disease."


@pytest.mark.parametrize("bad", [{"fidelity": -1}, {"no_finding_share": 1.5}, {"val_fraction": 1.0}])
def test_options_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="mimic-cxr"):
        MimicCxrOptions(**bad)
