"""MS-CXR files of the official shape: phrases, boxes, classes, impressions. Everything in them is made up."""

import gzip
import json
from pathlib import Path

import pytest

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.preparation.cohorts.ms_cxr import MsCxrOptions, read
from meddiff.preparation.records import Reading
from meddiff.shards.sample import Box, Phrase
from tests.builders.ms_cxr_tree import COLUMNS, CSV, dicom_id, path_of, row, write_csv, write_report


def rules(reading: Reading) -> list[str]:
    """Of every item that was left out."""
    return [one.rule for one in reading.rejected]


TWO_BOXES = [
    row(1, "Pneumonia", "bibasilar opacities", (100, 200, 30, 40)),
    row(1, "Pneumonia", "bibasilar opacities", (900, 210, 50, 60)),
    row(1, "Lung Opacity", "bibasilar opacities", (100, 200, 30, 40)),
    row(1, "Pneumonia", "right basal infection", (100, 200, 30, 40)),
    row(2, "Edema", "mild edema", (10, 20, 2000, 2500)),
]


def test_boxes_of_one_phrase_are_together_and_keep_their_pixels(tmp_path: Path) -> None:
    reading = read(write_csv(tmp_path, TWO_BOXES))
    first, second = reading.records
    assert first.key == dicom_id(1)
    assert first.path == path_of(1)
    assert first.patient_id == "10000000"
    assert first.labels == ("Lung Opacity", "Pneumonia")
    assert first.phrases == (
        Phrase(
            "bibasilar opacities", "Pneumonia",
            (Box("Pneumonia", 100, 200, 30, 40), Box("Pneumonia", 900, 210, 50, 60)),
        ),
        Phrase("bibasilar opacities", "Lung Opacity", (Box("Lung Opacity", 100, 200, 30, 40),)),
        Phrase("right basal infection", "Pneumonia", (Box("Pneumonia", 100, 200, 30, 40),)),
    )  # fmt: skip
    assert len(first.boxes) == 3
    assert second.phrases == (Phrase("mild edema", "Edema", (Box("Edema", 10, 20, 2000, 2500),)),)
    assert {record.split for record in reading.records} == {"grounding"}
    assert second.attributes["native_size"] == [2544, 3056]
    counts = reading.options["counts"]
    assert (counts["boxes"], counts["images"], counts["pairs"]) == (5, 2, 4)
    assert counts["pairs by class"] == {"Edema": 1, "Lung Opacity": 1, "Pneumonia": 2}
    assert reading.rejected == []


def test_class_sets_have_one_text_a_class_with_all_its_boxes(tmp_path: Path) -> None:
    root = write_csv(tmp_path, TWO_BOXES)
    write_report(root, 1, " FINAL REPORT\n IMPRESSION: Bibasilar\n pneumonia.\n")
    first, second = read(root, MsCxrOptions(pairs="class")).records
    assert [(one.label, one.text, len(one.boxes)) for one in first.phrases] == [
        ("Pneumonia", "Bibasilar pneumonia.", 2), ("Lung Opacity", "Bibasilar pneumonia.", 1),
    ]  # fmt: skip
    assert second.phrases[0].text == second.impression == "mild edema."
    assert (first.attributes["impression_from"], second.attributes["impression_from"]) == ("report", "phrases")


def test_images_without_an_impression_can_be_left_out(tmp_path: Path) -> None:
    root = write_csv(tmp_path, TWO_BOXES)
    write_report(root, 1, "FINDINGS: none\n")
    write_report(root, 2, "IMPRESSION: Edema.\n")
    reading = read(root, MsCxrOptions(missing_impression="reject"))
    assert [record.key for record in reading.records] == [dicom_id(2)]
    assert rules(reading) == ["image without an impression"] * 4


def test_phrases_stand_in_for_a_missing_report_once_each(tmp_path: Path) -> None:
    assert read(write_csv(tmp_path, TWO_BOXES)).records[0].impression == "bibasilar opacities. right basal infection."


def test_every_bad_row_says_why(tmp_path: Path) -> None:
    good = row(1, "Edema", "edema", (1, 2, 3, 4))
    bad = {
        "path is not one of MIMIC-CXR-JPG": [
            {**good, "path": "../../../etc/passwd.jpg"},
            {**good, "path": "/files/p10/p10000000/s50000001/" + dicom_id(1) + ".jpg"},
            {**good, "path": "files/p10/../p10000000/s50000001/" + dicom_id(1) + ".jpg"},
            {**good, "path": ""},
            {**good, "dicom_id": dicom_id(2)},
        ],
        "box or size is no number": [{**good, "x": ""}, {**good, "w": "nan"}, {**good, "image_width": "wide"}],
        "box without area or outside the image": [
            {**good, "w": 0}, {**good, "h": -5}, {**good, "x": 2544}, {**good, "y": -4},
        ],
        "image size differs from that of the image's first row": [{**good, "image_width": 100}],
        "no phrase": [{**good, "label_text": "  "}],
        "box that occurs twice for a phrase": [dict(good)],
    }  # fmt: skip
    reading = read(write_csv(tmp_path, [good, *(one for rows in bad.values() for one in rows)]))
    assert len(reading.records) == 1
    assert sorted(rules(reading)) == sorted(rule for rule, rows in bad.items() for _ in rows)
    assert "(row 3)" in reading.rejected[0].item
    steps = reading.funnel.rows()
    assert steps[0][1] == 16
    assert {rule: removed for rule, _, removed in steps[1:] if removed} == {
        rule: len(rows) for rule, rows in bad.items()
    }


def test_a_box_that_leaves_the_image_in_part_is_kept_as_it_is(tmp_path: Path) -> None:
    reading = read(write_csv(tmp_path, [row(1, "Edema", "edema", (-10, 3000, 50, 500))]))
    assert reading.records[0].boxes == (Box("Edema", -10, 3000, 50, 500),)


def test_the_json_holds_the_same_as_the_csv(tmp_path: Path) -> None:
    names = sorted({one["category_name"] for one in TWO_BOXES})
    numbers = {dicom_id(number): number for number in (1, 2)}
    images = [
        {"id": number, "file_name": f"{dicom_id(number)}.jpg", "path": path_of(number), "width": 2544, "height": 3056}
        for number in (1, 2)
    ]
    annotations = [
        {
            "id": place, "image_id": numbers[one["dicom_id"]], "category_id": names.index(one["category_name"]),
            "label_text": one["label_text"], "bbox": [one[axis] for axis in "xywh"],
        }
        for place, one in enumerate(TWO_BOXES)
    ]  # fmt: skip
    value = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in enumerate(names)],
    }
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "MS_CXR_Local_Alignment_v1.0.0.json").write_text(json.dumps(value), encoding="utf-8")
    assert read(tmp_path / "json").records == read(write_csv(tmp_path / "csv", TWO_BOXES)).records
    (tmp_path / "json" / "MS_CXR_Local_Alignment_v1.0.0.json").write_text('{"images": []}', encoding="utf-8")
    with pytest.raises(UserError, match=r"v1\.0\.0\.json"):
        read(tmp_path / "json")


def test_later_versions_with_a_split_column_are_read_and_the_split_is_kept(tmp_path: Path) -> None:
    rows = [{**one, "split": "test"} for one in TWO_BOXES]
    root = write_csv(tmp_path, rows, "MS_CXR_Local_Alignment_v1.1.0.csv", (*COLUMNS, "split"))
    assert {record.attributes["ms_cxr_split"] for record in read(root).records} == {"test"}


def test_two_versions_are_not_guessed_between(tmp_path: Path) -> None:
    write_csv(write_csv(tmp_path, TWO_BOXES), TWO_BOXES[:1], "MS_CXR_Local_Alignment_v1.1.0.csv")
    with pytest.raises(UserError, match="several files"):
        read(tmp_path)
    assert len(read(tmp_path, MsCxrOptions(file="MS_CXR_Local_Alignment_v1.1.0.csv")).records) == 1


def test_images_are_below_the_folder_of_the_metadata(tmp_path: Path) -> None:
    write_csv(tmp_path / "ms-cxr" / "1.0.0", TWO_BOXES)
    jpg = tmp_path / "mimic-cxr-jpg" / "2.1.0"
    jpg.mkdir(parents=True)
    (jpg / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(gzip.compress(b"dicom_id\n"))
    assert read(tmp_path).records[0].path == f"mimic-cxr-jpg/2.1.0/{path_of(1)}"


def test_a_missing_or_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MS_CXR_Local_Alignment_v.*physionet"):
        read(tmp_path)
    (tmp_path / CSV).write_text("dicom_id,path\n", encoding="utf-8")
    with pytest.raises(UserError, match="no column 'category_name'"):
        read(tmp_path)


def test_property_pairs_boxes_and_images_are_what_a_plain_count_says(tmp_path: Path) -> None:
    for case in range(12):
        rng = generator(11, "ms-cxr", case)
        rows = []
        for _ in range(int(rng.integers(1, 120))):
            label = str(rng.choice(FINDINGS))
            text = f"{label} {rng.integers(3)}"
            box = [
                int(rng.integers(0, 2000)),
                int(rng.integers(0, 2000)),
                int(rng.integers(1, 90)),
                int(rng.integers(1, 90)),
            ]
            rows.append(row(int(rng.integers(1, 25)), label, text, box))
        reading = read(write_csv(tmp_path / str(case), rows))
        pairs = {(one["dicom_id"], one["category_name"], one["label_text"]) for one in rows}
        boxes = {(*pair, *(one[axis] for axis in "xywh")) for one in rows for pair in [
            (one["dicom_id"], one["category_name"], one["label_text"])
        ]}  # fmt: skip
        found = {
            (record.key, phrase.label, phrase.text, int(box.x), int(box.y), int(box.w), int(box.h))
            for record in reading.records for phrase in record.phrases for box in phrase.boxes
        }  # fmt: skip
        assert found == boxes
        assert reading.options["counts"]["pairs"] == len(pairs)
        assert [record.key for record in reading.records] == sorted({one["dicom_id"] for one in rows})
