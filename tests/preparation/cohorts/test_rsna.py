"""RSNA pneumonia challenge: a small tree with the official names and columns, and the real csv of torchxrayvision."""

import csv
import io
import shutil
import zipfile
from collections import Counter

import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.rsna import RsnaOptions, read
from meddiff.shards.sample import Box, Phrase
from tests.builders.readings import carried, rules, splits_of_patients
from tests.builders.rsna_tree import MAPPING, OTHER, many, ugly_tree, write_stage_2

ALL_TRAIN = {"val": 0.0, "fidelity": 0.0, "grounding": 0.0}


def test_opacities_keep_their_boxes_and_normal_is_no_finding(tmp_path):
    first, second = read(ugly_tree(tmp_path), RsnaOptions(**ALL_TRAIN)).records
    boxes = (Box("Lung Opacity", 264, 152, 213, 379), Box("Lung Opacity", 562, 152, 256, 453))
    assert (first.key, first.path, first.patient_id) == ("a-1", "stage_2_train_images/a-1.dcm", "a-1")
    assert (first.labels, first.impression, first.boxes) == (("Lung Opacity",), "Lung Opacity", boxes)
    assert first.phrases == (Phrase("Lung Opacity", "Lung Opacity", boxes),)
    assert (second.key, second.labels, second.impression, second.boxes) == ("b-2", (NO_FINDING,), NO_FINDING, ())


def test_everything_that_is_left_out_has_its_reason(tmp_path):
    reading = read(ugly_tree(tmp_path), RsnaOptions(**ALL_TRAIN))
    labels, classes = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
    assert rules(reading) == {
        "malformed patientId": [f"../d ({labels}, row 7)", f"../d ({classes}, row 6)"],
        "repeated row": [f"a-1 ({labels}, row 6)"],
        "box and Target contradict": [f"g-7 ({labels}, row 10)", f"h-8 ({labels}, row 11)", f"n-14 ({labels}, row 17)"],
        "box is not four numbers": [f"f-6 ({labels}, row 9)"],
        "box without area or outside the image": [f"e-5 ({labels}, row 8)", f"i-9 ({labels}, row 12)"],
        "unknown class": [f"k-11 ({classes}, row 14)"],
        "class of an image without labels": [f"z-26 ({classes}, row 16)"],
        "not exactly one class": ["j-10", "k-11", "m-13"],
        "class and boxes contradict": ["e-5", "f-6", "g-7", "h-8", "i-9", "l-12", "n-14"],
        OTHER: ["c-3"],
    }
    assert [left for _, left, _ in reading.funnel.rows()] == [13, 10, 3, 2]


def test_abnormal_images_without_opacity_can_be_kept_without_label(tmp_path):
    reading = read(ugly_tree(tmp_path), RsnaOptions(not_normal="unlabelled", **ALL_TRAIN))
    kept = next(record for record in reading.records if record.key == "c-3")
    assert (kept.labels, kept.impression, kept.boxes, kept.phrases) == ((), "", (), ())
    assert OTHER not in rules(reading)


def test_no_patient_is_in_two_splits_when_rsnas_mapping_is_there(tmp_path):
    reading = read(many(tmp_path), RsnaOptions(val=0.2, fidelity=0.2, grounding=0.5))
    patients = splits_of_patients(reading)
    assert len(patients) == 200
    assert all(len(splits) == 1 for splits in patients.values())
    assert {split for splits in patients.values() for split in splits} == {"train", "val", "fidelity", "grounding"}
    counts = Counter(next(iter(splits)) for splits in patients.values())
    assert 35 <= counts["grounding"] <= 65  # 50 expected of the 100 with boxes, standard deviation 5
    for patient in (patient for patient, splits in patients.items() if splits == {"grounding"}):
        assert any(record.boxes for record in reading.records if record.patient_id == patient)
    assert reading.options["counts"]["images whose patient is known"] == 600
    assert (next(record for record in reading.records if record.key == "x-004")).patient_id == "00000001"


def test_without_the_mapping_an_image_is_a_patient_and_the_facts_say_so(tmp_path):
    (many(tmp_path) / MAPPING).unlink()
    reading = read(tmp_path)
    assert len({record.patient_id for record in reading.records}) == 600
    assert reading.options["counts"]["images whose patient is known"] == 0


@pytest.mark.parametrize("content", ["{", "3", '{"a": 1}', '[{"subset_img_id": "x-001"}]'])
def test_a_damaged_mapping_is_refused(tmp_path, content):
    (many(tmp_path) / MAPPING).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=MAPPING):
        read(tmp_path)


@pytest.mark.parametrize(
    "gone", ["stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images"]
)
def test_a_missing_part_is_named_with_where_it_comes_from(tmp_path, gone):
    path = ugly_tree(tmp_path) / gone
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{gone}.*kaggle"):
        read(tmp_path)


@pytest.mark.parametrize("options", [{"grounding": -0.1}, {"val": 0.6, "fidelity": 0.6}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="rsna"):
        RsnaOptions(**options)


def test_the_real_boxes_are_all_read(tmp_path):
    source = carried("kaggle_stage_2_train_labels.csv.zip")
    with zipfile.ZipFile(source) as archive:
        text = archive.read("stage_2_train_labels.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    # the package has no class file; which of the others are normal does not change the boxes
    classes = [f"{row['patientId']},{'Lung Opacity' if row['Target'] == '1' else 'Normal'}" for row in rows]
    write_stage_2(tmp_path, [], classes).joinpath("stage_2_train_labels.csv").unlink()
    shutil.copy(source, tmp_path / "stage_2_train_labels.csv.zip")
    reading = read(tmp_path)
    counts = reading.options["counts"]
    assert (counts["boxes"], counts["images"], counts["images with boxes"]) == (9_555, 26_684, 6_012)
    assert (len(reading.records), reading.rejected) == (26_684, [])
    boxes = Counter((record.key, box.x, box.y, box.w, box.h) for record in reading.records for box in record.boxes)
    assert boxes == Counter(
        (row["patientId"], *(float(row[name]) for name in ("x", "y", "width", "height"))) for row in rows if row["x"]
    )
    splits = Counter(record.split for record in reading.records)
    assert 540 <= splits["grounding"] <= 660  # 601 expected, standard deviation 23
