"""Any folder with a table: boxes, labels, splits and masks of its rows, and the real X-rays of ../shared."""

import csv
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.common.findings import NO_FINDING
from meddiff.preparation.cohorts.folder import read
from meddiff.preparation.cohorts.folder_table import FolderOptions
from meddiff.preparation.images import UnreadableImage
from meddiff.preparation.prepare_cohort import read_cohort
from meddiff.preparation.record_images import RecordImages
from meddiff.shards.sample import Box, Phrase
from tests.builders.folder_tree import many, write_json_lines, write_text_table
from tests.builders.readings import SHARED, only, rules, split_of, splits_of_patients


def test_boxes_of_their_own_table_are_added_to_those_of_the_row(tmp_path):
    write_text_table(
        tmp_path, "image,text,labels,x,y,w,h,phrase\na.png,t,Cyst,1,2,3,4,in the row\nb.png,t,Cyst|Drusen,,,,,\n"
    )
    boxes = "image,label,x,y,w,h,phrase,by\na.png,Drusen,10,20,30,40,,me\na.png,,1.25,1e1,1,1,,\nb.png,,1,1,1,1,,\n"
    write_text_table(tmp_path, boxes, "boxes.csv")
    first, second = read(tmp_path, FolderOptions(grounding=1.0)).records
    assert first.boxes == (Box("Cyst", 1, 2, 3, 4), Box("Drusen", 10, 20, 30, 40), Box("Cyst", 1.25, 10, 1, 1))
    assert [phrase.text for phrase in first.phrases] == ["in the row", "Drusen", "Cyst"]
    assert first.labels == ("Cyst", "Drusen")
    assert (second.boxes, second.phrases) == ((Box("", 1, 1, 1, 1),), ())
    write_text_table(tmp_path, "id,x,y,w,h\na.png,9,9,9,9\n", "more.csv")
    other = read(tmp_path, FolderOptions(boxes_table="more.csv", boxes_image="id"))
    assert [len(record.boxes) for record in other.records if record.key == "a"] == [2]
    assert other.options["files"] == ["meta.csv", "more.csv"]


def test_a_row_with_one_box_may_name_its_label_beside_the_labels_of_the_image(tmp_path):
    write_text_table(tmp_path, "image,labels,label,x,y,w,h\na.png,Cyst|Drusen,Drusen,1,2,3,4\n")
    record = only(read(tmp_path))
    assert (record.labels, record.boxes) == (("Cyst", "Drusen"), (Box("Drusen", 1, 2, 3, 4),))
    write_text_table(tmp_path, "image,label\na.png,Cyst|Drusen\n")
    assert only(read(tmp_path)).labels == ("Cyst", "Drusen")


def test_boxes_that_are_not_used_have_their_reason(tmp_path):
    write_text_table(
        tmp_path, "image,text,labels\na.png,t,Cyst\nb.png,t,No Finding\nc.png,,No Finding\n\nd.png,t,Normal\n"
    )
    rows = [
        "a.png,Cyst,1,2,3,4", "z.png,Cyst,1,2,3,4", "a.png,Cyst,1,2,3,4", "a.png,Cyst,1,,3,4", "a.png,Cyst,1,2,3,nan",
        "a.png,Cyst,1,2,0,4", "a.png,Cyst,-3,2,3,4", "a.png,Scar,1,2,3,4", "b.png,,1,2,3,4", "c.png,Scar,1,2,3,4",
        "a.png,No Finding,1,2,3,4", "d.png,Normal,5,5,5,5", ",,,,,",
    ]  # fmt: skip
    write_text_table(tmp_path, "\n".join(["image,label,x,y,w,h", *rows, ""]), "boxes.csv")
    options = FolderOptions(label_map={"Scar": "", "Normal": NO_FINDING}, val=0.0)
    reading = read(tmp_path, options)

    def row(name: str, *lines: int) -> list[str]:
        return [f"{name} (boxes.csv, row {line})" for line in lines]

    assert rules(reading) == {
        "box of an image that is not listed": [*row("z.png", 3), *row("(no name)", 14)],
        "box without area, outside the image or not four numbers": row("a.png", 5, 6, 7, 8),
        "repeated box": row("a.png", 4),
        f"box of {NO_FINDING}": [*row("b.png", 10), *row("a.png", 12), *row("d.png", 13)],
        "box of a label that is left out": [*row("a.png", 9), *row("c.png", 11)],
        # what was boxed there is left out, so it is neither healthy nor labelled
        "no text and no label": ["c.png (meta.csv, row 4)"],
    }
    assert {record.key: (record.labels, record.boxes) for record in reading.records} == {
        "a": (("Cyst",), (Box("Cyst", 1, 2, 3, 4),)), "b": ((NO_FINDING,), ()), "d": ((NO_FINDING,), ()),
    }  # fmt: skip
    assert reading.options["boxes_removed"]["repeated box"] == 1


def test_no_finding_stands_alone_or_not_at_all(tmp_path):
    rows = {
        "a": ("No Finding", ()), "b": ("No Finding|Cyst", ()), "c": ("No Finding|Scar", ()), "d": ("Healthy", ()),
        "e": ("No Finding", [{"x": 1, "y": 1, "w": 2, "h": 2, "label": "Drusen"}]), "f": ("No Finding|Healthy", ()),
        "g": ("No Finding", [{"x": 1, "y": 1, "w": 2, "h": 2, "label": "Scar"}]),
    }  # fmt: skip
    write_json_lines(
        tmp_path,
        *({"image": f"{k}.png", "text": "t", "labels": v.split("|"), "boxes": list(b)} for k, (v, b) in rows.items()),
    )
    options = FolderOptions(label_map={"Scar": "", "Healthy": NO_FINDING})
    assert {record.key: record.labels for record in read(tmp_path, options).records} == {
        "a": (NO_FINDING,), "b": ("Cyst",), "c": (), "d": (NO_FINDING,), "e": ("Drusen",), "f": (NO_FINDING,), "g": (),
    }  # fmt: skip


def test_labels_are_renamed_left_out_and_joined_everywhere(tmp_path):
    row = {"image": "a.png", "labels": ["Mass", "Nodule", "Scar", "Cyst"], "masks": {"Mass": "m.png", "Scar": "s.png"},
           "boxes": [{"x": 1, "y": 1, "w": 2, "h": 2, "label": name} for name in ("Nodule", "Mass", "Scar")]}  # fmt: skip
    write_json_lines(tmp_path, row)
    record = only(
        read(tmp_path, FolderOptions(label_map={"Mass": "Opacity", "Nodule": "Opacity", "Scar": "", "Other": "x"}))
    )
    assert (record.labels, record.impression) == (("Opacity", "Cyst"), "Opacity Cyst")
    boxes = (Box("Opacity", 1, 1, 2, 2),) * 2
    assert (record.boxes, record.phrases) == (boxes, (Phrase("Opacity", "Opacity", boxes),))
    assert record.attributes == {"mask_files": {"Opacity": "m.png"}, "labels_written": row["labels"]}


def test_rows_that_are_not_used_have_their_reason(tmp_path):
    rows = [
        'a.png,"two\nlines",,train',
        ",t,,train",
        ",,,",
        "a.png,again,,val",
        "",
        "b.png, ,Scar,train",
        "c.png,t,,Train",
        "d.png,t",
    ]
    text = "\n".join(["image,text,labels,split", *rows])
    reading = read_cohort("folder", write_text_table(tmp_path, text), FolderOptions(label_map={"Scar": ""}))
    assert [(record.key, record.impression) for record in reading.records] == [("a", "two lines")]
    assert rules(reading) == {
        "no image path": ["(no name) (meta.csv, row 4)", "(no name) (meta.csv, row 5)"],
        "repeated image": ["a.png (meta.csv, row 6)"],
        "no text and no label": ["b.png (meta.csv, row 8)"],
        "split is not one of train, val, grounding, fidelity, test": [
            "c.png (meta.csv, row 9)",
            "d.png (meta.csv, row 10)",
        ],
    }
    assert [left for _, left, _ in reading.funnel.rows()] == [7, 5, 4, 3, 1]


def test_splits_are_drawn_for_patients_and_grounding_has_boxes(tmp_path):
    options = FolderOptions(val=0.2, fidelity=0.3, grounding=0.5)
    reading = read_cohort("folder", write_text_table(tmp_path, many()), options)
    patients = splits_of_patients(reading)
    assert len(patients) == 200
    assert all(len(one) == 1 for one in patients.values())
    counts = Counter(next(iter(one)) for one in patients.values())
    assert 15 <= counts["grounding"] <= 45  # 30 expected of the 60, standard deviation 3.9
    assert 14 <= counts["val"] <= 54  # 34, 5.2
    assert 27 <= counts["fidelity"] <= 75  # 51, 6
    assert all(record.boxes for record in reading.records if record.split == "grounding")
    assert len(rules(reading)["image without box or mask of a grounding patient"]) == 2 * counts["grounding"]
    header, *rows = many().splitlines()
    write_text_table(tmp_path, "\n".join([header, *rows[:50:-1]]))
    before = split_of(reading)
    fewer = split_of(read(tmp_path, options))
    assert all(before[key] == split for key, split in fewer.items())
    again = FolderOptions(val=0.2, fidelity=0.3, grounding=0.5, seed=1)
    assert split_of(read(tmp_path, again)) != fewer


def test_without_patients_an_image_is_its_own_and_two_rows_of_one_file_are_one(tmp_path):
    rows = [f"{n},{n // 2}.png,text" for n in range(200)]
    write_text_table(tmp_path, "\n".join(["id,image,text", *rows]))
    reading = read_cohort("folder", tmp_path, FolderOptions(id="id", val=0.5))
    assert len(reading.records) == 200
    assert len({record.patient_id for record in reading.records}) == 100
    assert 30 <= len({r.patient_id for r in reading.records if r.split == "val"}) <= 70


def test_given_splits_that_share_a_patient_are_refused(tmp_path):
    write_text_table(tmp_path, "image,text,split,patient\na.png,t,train,p\nb.png,t,val,p\n")
    with pytest.raises(UserError, match="patient 'p' is in two splits"):
        read_cohort("folder", tmp_path)


def picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_masks_are_read_from_their_files_and_make_a_grounding_set(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:40] = 3
    picture(tmp_path / "a.png", np.arange(2400, dtype=np.uint8).reshape(40, 60))
    picture(tmp_path / "m.png", mask)
    write_text_table(tmp_path, "image,text,masks\na.png,t,Cyst=m.png; Big one = m.png;\n")
    reading = read(tmp_path)
    (record,) = reading.records
    assert record.split == "grounding"
    assert reading.native_masks is not None
    reader = pickle.loads(pickle.dumps(reading.native_masks))
    found = reader(record, (40, 60))
    assert list(found) == ["Cyst", "Big one"]
    assert found["Cyst"].dtype == bool
    assert np.array_equal(found["Cyst"], mask > 0)
    sample = RecordImages(tmp_path, 20, reader)(record)  # the crop takes 10 pixels from each side
    assert np.argwhere(sample.masks["Cyst"]).tolist() == [[y, x] for y in range(5, 10) for x in range(10, 15)]
    with pytest.raises(UnreadableImage, match="60 x 40 pixels, its image has 50 x 40"):
        reader(record, (40, 50))
    (tmp_path / "m.png").unlink()
    with pytest.raises(UnreadableImage, match=r"mask m\.png: no such file"):
        reader(record, (40, 60))
    (tmp_path / "m.png").symlink_to(tmp_path.parent / "outside.png")
    with pytest.raises(UserError, match="leads out of the root"):
        reader(record, (40, 60))
    assert read(write_text_table(tmp_path, "image,text\na.png,t\n")).native_masks is None


NIH_MAP = {
    "Effusion": "Pleural Effusion", "Infiltration": "Lung Opacity", "Infiltrate": "Lung Opacity", "Mass": "Lung Opacity",
    "Nodule": "Lung Opacity", "Emphysema": "", "Fibrosis": "", "Hernia": "", "Pleural_Thickening": "",
}  # fmt: skip

NIH = FolderOptions(image="file", id="image", label_map=NIH_MAP)


def real(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real X-rays {SHARED / name} are not there")
    return SHARED / name


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_real_boxed_x_rays_are_all_read_with_their_boxes_to_the_pixel():
    root = real("nih_boxes_512")
    reading = read_cohort("folder", root, NIH)
    assert (len(reading.records), reading.rejected) == (165, [])
    assert {record.split for record in reading.records} == {"grounding"}
    boxes = Counter((f"{r.key}.png", b.label, b.x, b.y, b.w, b.h) for r in reading.records for b in r.boxes)
    assert sum(boxes.values()) == reading.options["counts"]["boxes"] == 261
    assert boxes == Counter(
        (row["image"], NIH_MAP.get(row["label"], row["label"]), *(float(row[name]) for name in "xywh"))
        for row in rows_of(root / "boxes.csv")
    )
    written = {row["image"].removesuffix(".png"): row for row in rows_of(root / "meta.csv")}
    assert {r.key: (r.path, r.patient_id, r.view) for r in reading.records} == {
        key: (row["file"], row["patient"], row["view"]) for key, row in written.items()
    }
    assert all(NO_FINDING not in record.labels for record in reading.records)  # 5 are written so, all with boxes
    assert reading.options["counts"]["boxes by label"]["Pneumonia"] == 43
    record = reading.records[0]
    sample = RecordImages(root, 256)(record)
    assert (sample.image.shape, len(sample.boxes)) == ((256, 256), len(record.boxes))
    for box, native in zip(sample.boxes, record.boxes, strict=True):
        halves = [native.x / 2, native.y / 2, native.w / 2, native.h / 2]
        assert [box.x, box.y, box.w, box.h] == pytest.approx(halves)


def test_the_real_frontal_x_rays_are_all_read_and_share_no_patient_with_the_boxed():
    root, boxed = real("nih_frontal_256"), real("nih_boxes_512")
    reading = read_cohort("folder", root, replace(NIH, val=0.1, fidelity=0.2))
    rows = {row["image"].removesuffix(".png"): set(row["labels"].split("|")) for row in rows_of(root / "meta.csv")}
    outside = {label for label, name in NIH_MAP.items() if not name}
    gone = {key for key, labels in rows.items() if not labels - outside}
    assert {record.key for record in reading.records} == set(rows) - gone
    assert len(rows) == 640 == len(reading.records) + len(reading.rejected)
    assert len(rules(reading)["no text and no label"]) == len(gone) == 18
    assert [left for _, left, _ in reading.funnel.rows()] == [640, 640, 640, 622, 622]
    healthy = {record.key for record in reading.records if record.labels == (NO_FINDING,)}
    assert healthy == {key for key, labels in rows.items() if labels == {"No Finding"}}
    assert len(healthy) == 300
    patients = splits_of_patients(reading)
    assert all(len(one) == 1 for one in patients.values())
    splits = Counter(record.split for record in reading.records)
    assert (set(splits), splits["grounding"]) == ({"train", "val", "fidelity"}, 0)
    assert not set(patients) & {record.patient_id for record in read(boxed, NIH).records}
    assert len({row["patient"] for row in rows_of(root / "meta.csv")}) == 508 - 1
