"""VinDr-CXR: small trees of both layouts with the official names and columns, and the real csv of torchxrayvision."""

import csv
import gzip
import shutil
from collections import Counter

import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.vindr_cxr import CLASSES, VindrCxrOptions, read
from meddiff.shards.sample import Box, Phrase
from tests.builders.readings import carried, rules, split_of
from tests.builders.vindr_cxr_tree import TREE, write_kaggle, write_physionet

ALL_TRAIN = {"val": 0.0, "fidelity": 0.0, "grounding": 0.0}


def found(reading) -> dict[str, tuple[tuple[str, ...], tuple[Box, ...]]]:
    return {record.key: (record.labels, record.boxes) for record in reading.records}


def test_readers_are_merged_and_boxes_keep_their_pixels(tmp_path):
    write_kaggle(
        tmp_path,
        "aaa1,Cardiomegaly,3,R10,691.0,1375.0,1653.0,1831.0",
        "aaa1,Cardiomegaly,3,R9,700.0,1380.0,1660.0,1840.0",
        "aaa1,Pleural effusion,10,R9,100.5,900.0,400.0,1400.0",
        "aaa1,Aortic enlargement,0,R8,900.0,600.0,1200.0,900.0",
        "bbb2,No finding,14,R8,,,,", "bbb2,No finding,14,R9,,,,", "bbb2,No finding,14,R10,,,,",
    )  # fmt: skip
    reading = read(tmp_path, VindrCxrOptions(**ALL_TRAIN))
    hearts = (Box("Cardiomegaly", 691, 1375, 962, 456), Box("Cardiomegaly", 700, 1380, 960, 460))
    fluid = Box("Pleural Effusion", 100.5, 900, 299.5, 500)
    first, second = reading.records
    assert (first.labels, first.boxes) == (("Cardiomegaly", "Pleural Effusion"), (*hearts, fluid))
    assert first.phrases == (
        Phrase("Cardiomegaly", "Cardiomegaly", hearts),
        Phrase("Pleural Effusion", "Pleural Effusion", (fluid,)),
    )
    assert (first.key, first.path, first.patient_id) == ("aaa1", "train/aaa1.dicom", "aaa1")
    assert (first.impression, first.attributes["others"]) == ("Cardiomegaly Pleural Effusion", ["Aortic enlargement"])
    assert (second.labels, second.boxes, second.phrases) == ((NO_FINDING,), (), ())
    assert second.impression == NO_FINDING
    assert rules(reading) == {"class outside the eight": ["train/aaa1 (row 5)"]}


def test_enough_readers_must_box_the_same_place(tmp_path):
    write_kaggle(
        tmp_path,
        # two agree on the heart (overlap 0.9), a third saw it elsewhere
        "a,Cardiomegaly,3,R1,0,0,100,100", "a,Cardiomegaly,3,R2,0,0,100,90", "a,Cardiomegaly,3,R3,300,300,400,400",
        # two saw a pneumothorax, on different sides
        "b,Pneumothorax,12,R1,0,0,50,50", "b,Pneumothorax,12,R2,200,0,250,50", "b,No finding,14,R3,,,,",
        # one reader drew the same place twice: still one reader
        "c,Edema,9,R1,0,0,50,50", "c,Edema,9,R1,1,0,50,50",
        "d,No finding,14,R1,,,,",
        # half beside each other: an overlap of 0.25
        "e,Edema,9,R1,0,0,100,100", "e,Edema,9,R2,60,0,160,100",
    )  # fmt: skip
    union = read(tmp_path, VindrCxrOptions(**ALL_TRAIN))
    assert {key: len(boxes) for key, (_, boxes) in found(union).items()} == {"a": 3, "b": 2, "c": 2, "d": 0, "e": 2}
    two = read(tmp_path, VindrCxrOptions(agreement=2, **ALL_TRAIN))
    assert found(two) == {
        "a": (("Cardiomegaly",), (Box("Cardiomegaly", 0, 0, 100, 100), Box("Cardiomegaly", 0, 0, 100, 90))),
        "d": ((NO_FINDING,), ()),
    }
    assert rules(two) == {"too few readers agree": ["train/b", "train/c", "train/e"]}
    assert [one.detail for one in two.rejected] == ["No Finding by 1, Pneumothorax by 2", "Edema by 1", "Edema by 2"]


def test_bad_rows_and_images_are_named(tmp_path):
    write_kaggle(
        tmp_path,
        "../etc/passwd,Cardiomegaly,3,R1,1,1,2,2", "/abs,Cardiomegaly,3,R1,1,1,2,2", ",Cardiomegaly,3,R1,1,1,2,2",
        "a,Cardiomegaly,3,R1,10,10,20,20", "a,Cardiomegaly,3,R1,10,10,20,20",
        "a,Unicorn,99,R1,10,10,20,20",
        "b,Edema,3,R1,10,10,,20", "b,Edema,3,R1,x,10,20,20", "b,Edema,3,R1,nan,1,2,2", "b,Edema,3,R1,,,,",
        "c,Atelectasis,1,R1,10,10,10,20", "c,Atelectasis,1,R1,30,10,20,20", "c,Atelectasis,1,R1,-9,1,0,20",
        "d,Nodule/Mass,8,R1,10,10,20,20", "d,No finding,14,R2,,,,",
    )  # fmt: skip
    reading = read(tmp_path, VindrCxrOptions(**ALL_TRAIN))
    assert found(reading) == {"a": (("Cardiomegaly",), (Box("Cardiomegaly", 10, 10, 10, 10),))}
    assert rules(reading) == {
        "malformed image_id": ["train/../etc/passwd (row 2)", "train//abs (row 3)", "train/ (row 4)"],
        "repeated row": ["train/a (row 6)"],
        "unknown class": ["train/a (row 7)"],
        "box is not four numbers": [f"train/b (row {row})" for row in (8, 9, 10, 11)],
        "box without area": [f"train/c (row {row})" for row in (12, 13, 14)],
        "class outside the eight": ["train/d (row 15)"],
        "no usable row": ["train/b", "train/c"],
        "only findings outside the eight": ["train/d"],
    }
    assert [left for _, left, _ in reading.funnel.rows()] == [4, 4, 2, 1, 1]
    assert len(reading.records) == 1
    assert reading.options["rows_removed"]["box without area"] == 3


def test_physionet_takes_pneumonia_from_the_labels_and_grounding_from_the_test_set(tmp_path):
    write_physionet(tmp_path, *TREE)
    reading = read(tmp_path, VindrCxrOptions(val=0.0, fidelity=0.0, grounding=1.0))
    assert found(reading) == {
        "a": (("Cardiomegaly", "Pneumonia"), (Box("Cardiomegaly", 1, 2, 10, 10),)),
        "b": (("Pneumonia",), ()),
        "c": ((NO_FINDING,), ()),
        "t1": (("Cardiomegaly",), (Box("Cardiomegaly", 5, 5, 4, 5),)),
        "t2": ((NO_FINDING,), ()),
    }
    assert split_of(reading) == {
        "a": "train", "b": "train", "c": "train", "t1": "grounding", "t2": "grounding",
    }  # fmt: skip
    assert {record.path for record in reading.records if record.key in ("a", "t1")} == {
        "vindr-cxr/1.0.0/train/a.dicom", "vindr-cxr/1.0.0/test/t1.dicom",
    }  # fmt: skip
    assert rules(reading) == {
        "malformed image_id": ["vindr-cxr/1.0.0/annotations/image_labels_train.csv (row 8)"],
        "only findings outside the eight": ["train/d", "test/t3"],
    }


def test_agreement_counts_readers_of_pneumonia_and_spares_the_consensus(tmp_path):
    write_physionet(tmp_path, *TREE)
    reading = read(tmp_path, VindrCxrOptions(agreement=2, **ALL_TRAIN))
    assert {key: labels for key, (labels, _) in found(reading).items()} == {
        "a": ("Pneumonia",), "c": (NO_FINDING,), "t1": ("Cardiomegaly",), "t2": (NO_FINDING,),
    }  # fmt: skip
    assert rules(reading)["too few readers agree"] == ["train/b"]


def test_splits_are_drawn_for_each_image_and_grounding_has_boxes(tmp_path):
    rows = [f"i{n:04d},Edema,3,R1,1,1,9,9" if n % 2 else f"i{n:04d},No finding,14,R1,,,," for n in range(600)]
    write_kaggle(tmp_path, *rows)
    reading = read(tmp_path, VindrCxrOptions(val=0.1, fidelity=0.2, grounding=0.4))
    splits = Counter((record.split, bool(record.boxes)) for record in reading.records)
    assert splits["grounding", False] == 0
    assert 95 <= splits["grounding", True] <= 145  # 120 expected, standard deviation 8.5
    assert 22 <= splits["val", True] + splits["val", False] <= 74  # 48, 6.6
    assert 60 <= splits["fidelity", True] + splits["fidelity", False] <= 132  # 96, 9
    write_kaggle(tmp_path, *rows[:50:-1])
    fewer = read(tmp_path, VindrCxrOptions(val=0.1, fidelity=0.2, grounding=0.4))
    before = split_of(reading)
    assert all(before[record.key] == record.split for record in fewer.records)


@pytest.mark.parametrize("gone", ["image_labels_train.csv", "image_labels_test.csv"])
def test_a_missing_file_is_named_with_where_it_comes_from(tmp_path, gone):
    (write_physionet(tmp_path, *TREE) / "annotations" / gone).unlink()
    with pytest.raises(UserError, match=rf"{gone}.*physionet\.org"):
        read(tmp_path)


def test_an_empty_folder_a_missing_column_and_missing_images_are_named(tmp_path):
    with pytest.raises(UserError, match=r"annotations_train\.csv.*kaggle"):
        read(tmp_path)
    write_kaggle(tmp_path, "a,No finding,14,R1,,,,").joinpath("train.csv").write_text(
        "image_id,rad_id\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="class_name"):
        read(tmp_path)
    write_kaggle(tmp_path, "a,No finding,14,R1,,,,").joinpath("train").rmdir()
    with pytest.raises(UserError, match="no folder train"):
        read(tmp_path)


def test_every_finding_of_the_paper_has_a_class():
    assert set(CLASSES.values()) == {*FINDINGS, NO_FINDING, ""}
    assert len(CLASSES) == 22 + 6 + 1  # local, global; "other disease" is spelled in two ways


@pytest.mark.parametrize("options", [{"agreement": 0}, {"val": -0.1}, {"val": 0.6, "fidelity": 0.6}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="vindr-cxr"):
        VindrCxrOptions(**options)


def test_the_real_boxes_are_all_read(tmp_path):
    source = carried("vinbigdata-train.csv.gz")
    (tmp_path / "train").mkdir()
    shutil.copy(source, tmp_path / "train.csv.gz")
    reading = read(tmp_path)
    counts = reading.options["counts"]
    assert (counts["boxes"], counts["images"], counts["images with boxes"]) == ({"train": 36_096}, 15_000, 4_394)
    with gzip.open(source, "rt", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    boxed = {"Cardiomegaly", "Consolidation", "Atelectasis", "Pneumothorax", "Lung Opacity", "Pleural effusion"}
    wanted = {row["image_id"] for row in rows if row["class_name"] in boxed}
    findings = {record.key: record for record in reading.records if record.boxes}
    assert set(findings) == wanted
    drawn = {
        tuple(row[name] for name in ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")) for row in rows
    }
    assert sum(len(record.boxes) for record in findings.values()) == sum(one[1] in boxed for one in drawn)
    healthy = {row["image_id"] for row in rows} - {row["image_id"] for row in rows if row["x_min"]}
    assert {record.key for record in reading.records if record.labels == (NO_FINDING,)} == healthy
    assert len(reading.records) + sum(one.item.count("row") == 0 for one in reading.rejected) == 15_000
