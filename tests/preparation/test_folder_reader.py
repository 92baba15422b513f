"""Any folder with a table: small trees in every way a table may be written, and the real X-rays of ../shared."""

import csv
import gzip
import io
import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from tests.builders.readings import SHARED, rules


def write(root: Path, text: str, name: str = "meta.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    (root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return root


def json_lines(root: Path, *rows: dict[str, Any], name: str = "meta.jsonl") -> Path:
    return write(root, "".join(json.dumps(row) + "\n" for row in rows), name)


def only(root: Path, options: FolderOptions | None = None):
    (record,) = read(root, options).records
    return record


ROWS: list[dict[str, Any]] = [
    {"image": "a/1.png", "text": "One, with a comma", "labels": ["Cyst", "Drusen"], "split": "train", "patient": "p1",
     "view": "left", "boxes": [[1.5, 2, 3, 4.25]], "masks": {"Cyst": "m/1.png", "Drusen": "m/2.png"}, "age": "57"},
    {"image": "a/2.png", "labels": ["Cyst"], "split": "grounding", "patient": "p2",
     "boxes": [{"x": 5, "y": 6, "w": 7, "h": 8, "phrase": "dark spot"}, {"x": 1, "y": 1, "w": 2, "h": 2, "phrase": "dark spot"},
               {"x": 0, "y": 0, "w": 1, "h": 1, "label": "Drusen"}]},
    {"image": "b.JPG", "text": "no labels", "split": "val", "patient": "p3"},
]  # fmt: skip


def as_csv() -> str:
    stream = io.StringIO(newline="")
    columns = ("image", "text", "labels", "split", "patient", "view", "boxes", "masks", "age")
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in ROWS:
        masks = "; ".join(f"{name}={path}" for name, path in row.get("masks", {}).items())
        boxes = json.dumps(row["boxes"]) if "boxes" in row else ""
        writer.writerow(row | {"labels": " | ".join(row.get("labels", [])), "boxes": boxes, "masks": masks})
    return stream.getvalue()


@pytest.mark.parametrize("form", ["csv", "csv.gz", "bom", "crlf", "jsonl", "jsonl.gz", "bom.jsonl"])
def test_all_forms_of_the_table_give_the_same_records(tmp_path, form):
    lines = "".join(json.dumps(row) + "\n\n" for row in ROWS)
    {
        "csv": lambda: write(tmp_path, as_csv()),
        "csv.gz": lambda: write(tmp_path, as_csv(), "meta.csv.gz"),
        "bom": lambda: write(tmp_path, "\ufeff" + as_csv(), "metadata.csv"),
        "crlf": lambda: write(tmp_path, as_csv().replace("\n", "\r\n")),
        "jsonl": lambda: write(tmp_path, lines, "meta.jsonl"),
        "jsonl.gz": lambda: write(tmp_path, lines, "metadata.jsonl.gz"),
        "bom.jsonl": lambda: write(tmp_path, "\ufeff" + lines, "meta.jsonl"),
    }[form]()
    reading = read_cohort("folder", tmp_path)
    first, second, third = reading.records
    assert (first.key, first.path, first.split, first.patient_id, first.view) == (
        "a-1",
        "a/1.png",
        "train",
        "p1",
        "left",
    )
    assert (first.impression, first.labels) == ("One, with a comma", ("Cyst", "Drusen"))
    # two labels, so that nothing says which the box shows
    assert (first.boxes, first.phrases) == ((Box("", 1.5, 2, 3, 4.25),), ())
    assert first.attributes == {"table": {"age": "57"}, "mask_files": {"Cyst": "m/1.png", "Drusen": "m/2.png"}}
    spots = (Box("Cyst", 5, 6, 7, 8), Box("Cyst", 1, 1, 2, 2))
    drusen = Box("Drusen", 0, 0, 1, 1)
    assert (second.impression, second.labels) == ("Cyst Drusen", ("Cyst", "Drusen"))
    assert second.boxes == (*spots, drusen)
    assert second.phrases == (Phrase("dark spot", "Cyst", spots), Phrase("Drusen", "Drusen", (drusen,)))
    assert (third.key, third.labels, third.impression, third.split) == ("b", (), "no labels", "val")
    assert reading.rejected == []
    assert reading.options["counts"]["boxes"] == 4


def test_columns_may_have_other_names_and_the_separator_too(tmp_path):
    write(
        tmp_path,
        "name,file,report,tags,group,side,set\nx 1,img/x.tif,A text.,Drusen; Cyst ;,g,L,test\n",
        "rows.csv",
    )
    options = FolderOptions(
        table="rows.csv", image="file", id="name", text="report", labels="tags", separator=";", patient="group", view="side",
        split="set",
    )  # fmt: skip
    record = only(tmp_path, options)
    assert (record.key, record.path, record.patient_id, record.view, record.split) == (
        "x_1",
        "img/x.tif",
        "g",
        "L",
        "test",
    )
    assert (record.impression, record.labels) == ("A text.", ("Drusen", "Cyst"))


def test_boxes_of_their_own_table_are_added_to_those_of_the_row(tmp_path):
    write(tmp_path, "image,text,labels,x,y,w,h,phrase\na.png,t,Cyst,1,2,3,4,in the row\nb.png,t,Cyst|Drusen,,,,,\n")
    boxes = "image,label,x,y,w,h,phrase,by\na.png,Drusen,10,20,30,40,,me\na.png,,1.25,1e1,1,1,,\nb.png,,1,1,1,1,,\n"
    write(tmp_path, boxes, "boxes.csv")
    first, second = read(tmp_path, FolderOptions(grounding=1.0)).records
    assert first.boxes == (Box("Cyst", 1, 2, 3, 4), Box("Drusen", 10, 20, 30, 40), Box("Cyst", 1.25, 10, 1, 1))
    assert [phrase.text for phrase in first.phrases] == ["in the row", "Drusen", "Cyst"]
    assert first.labels == ("Cyst", "Drusen")
    assert (second.boxes, second.phrases) == ((Box("", 1, 1, 1, 1),), ())
    write(tmp_path, "id,x,y,w,h\na.png,9,9,9,9\n", "more.csv")
    other = read(tmp_path, FolderOptions(boxes_table="more.csv", boxes_image="id"))
    assert [len(record.boxes) for record in other.records if record.key == "a"] == [2]
    assert other.options["files"] == ["meta.csv", "more.csv"]


def test_a_row_with_one_box_may_name_its_label_beside_the_labels_of_the_image(tmp_path):
    write(tmp_path, "image,labels,label,x,y,w,h\na.png,Cyst|Drusen,Drusen,1,2,3,4\n")
    record = only(tmp_path)
    assert (record.labels, record.boxes) == (("Cyst", "Drusen"), (Box("Drusen", 1, 2, 3, 4),))
    write(tmp_path, "image,label\na.png,Cyst|Drusen\n")
    assert only(tmp_path).labels == ("Cyst", "Drusen")


def test_boxes_that_are_not_used_have_their_reason(tmp_path):
    write(tmp_path, "image,text,labels\na.png,t,Cyst\nb.png,t,No Finding\nc.png,,No Finding\n\nd.png,t,Normal\n")
    rows = [
        "a.png,Cyst,1,2,3,4", "z.png,Cyst,1,2,3,4", "a.png,Cyst,1,2,3,4", "a.png,Cyst,1,,3,4", "a.png,Cyst,1,2,3,nan",
        "a.png,Cyst,1,2,0,4", "a.png,Cyst,-3,2,3,4", "a.png,Scar,1,2,3,4", "b.png,,1,2,3,4", "c.png,Scar,1,2,3,4",
        "a.png,No Finding,1,2,3,4", "d.png,Normal,5,5,5,5", ",,,,,",
    ]  # fmt: skip
    write(tmp_path, "\n".join(["image,label,x,y,w,h", *rows, ""]), "boxes.csv")
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
    json_lines(
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
    json_lines(tmp_path, row)
    record = only(tmp_path, FolderOptions(label_map={"Mass": "Opacity", "Nodule": "Opacity", "Scar": "", "Other": "x"}))
    assert (record.labels, record.impression) == (("Opacity", "Cyst"), "Opacity Cyst")
    boxes = (Box("Opacity", 1, 1, 2, 2),) * 2
    assert (record.boxes, record.phrases) == (boxes, (Phrase("Opacity", "Opacity", boxes),))
    assert record.attributes == {"mask_files": {"Opacity": "m.png"}, "labels_written": row["labels"]}


def test_json_values_that_are_numbers_or_null_are_not_lost(tmp_path):
    json_lines(
        tmp_path,
        {"image": "a.png", "id": 0, "patient": 0, "labels": 0, "text": None, "x": 0, "y": 0, "w": 4, "h": 4},
        {"image": "b.png", "id": 1, "patient": 0, "labels": [0, None, "Cyst"], "boxes": [], "masks": None},
    )
    first, second = read(tmp_path, FolderOptions(id="id", val=0.5, grounding=0.0)).records
    assert (first.key, first.patient_id, first.labels, first.impression) == ("0", "0", ("0",), "0")
    assert (second.patient_id, second.labels, second.split) == ("0", ("0", "Cyst"), first.split)
    assert first.boxes == (Box("0", 0, 0, 4, 4),)


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
    reading = read_cohort("folder", write(tmp_path, text), FolderOptions(label_map={"Scar": ""}))
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


def many(boxed: int = 60) -> str:
    """600 images of 200 patients; the second image of the first patients has a box."""
    rows = [
        f"{n:04d}.png,text {n},p{n // 3}," + ("1,1,9,9" if n % 3 == 1 and n < 3 * boxed else ",,,") for n in range(600)
    ]
    return "\n".join(["image,text,patient,x,y,w,h", *rows, ""])


def test_splits_are_drawn_for_patients_and_grounding_has_boxes(tmp_path):
    options = FolderOptions(val=0.2, fidelity=0.3, grounding=0.5)
    reading = read_cohort("folder", write(tmp_path, many()), options)
    patients: dict[str, set[str]] = {}
    for record in reading.records:
        patients.setdefault(record.patient_id, set()).add(record.split)
    assert len(patients) == 200
    assert all(len(one) == 1 for one in patients.values())
    counts = Counter(next(iter(one)) for one in patients.values())
    assert 15 <= counts["grounding"] <= 45  # 30 expected of the 60, standard deviation 3.9
    assert 14 <= counts["val"] <= 54  # 34, 5.2
    assert 27 <= counts["fidelity"] <= 75  # 51, 6
    assert all(record.boxes for record in reading.records if record.split == "grounding")
    assert len(rules(reading)["image without box or mask of a grounding patient"]) == 2 * counts["grounding"]
    header, *rows = many().splitlines()
    write(tmp_path, "\n".join([header, *rows[:50:-1]]))
    before = {record.key: record.split for record in reading.records}
    fewer = {record.key: record.split for record in read(tmp_path, options).records}
    assert all(before[key] == split for key, split in fewer.items())
    again = FolderOptions(val=0.2, fidelity=0.3, grounding=0.5, seed=1)
    assert {record.key: record.split for record in read(tmp_path, again).records} != fewer


def test_without_patients_an_image_is_its_own_and_two_rows_of_one_file_are_one(tmp_path):
    rows = [f"{n},{n // 2}.png,text" for n in range(200)]
    write(tmp_path, "\n".join(["id,image,text", *rows]))
    reading = read_cohort("folder", tmp_path, FolderOptions(id="id", val=0.5))
    assert len(reading.records) == 200
    assert len({record.patient_id for record in reading.records}) == 100
    assert 30 <= len({r.patient_id for r in reading.records if r.split == "val"}) <= 70


def test_given_splits_that_share_a_patient_are_refused(tmp_path):
    write(tmp_path, "image,text,split,patient\na.png,t,train,p\nb.png,t,val,p\n")
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
    write(tmp_path, "image,text,masks\na.png,t,Cyst=m.png; Big one = m.png;\n")
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
    assert read(write(tmp_path, "image,text\na.png,t\n")).native_masks is None


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "b/../../a.png", "C:/a.png", "..\\\\a.png"])
def test_paths_that_lead_out_of_the_root_are_refused(tmp_path, path):
    for row in (f"{path},t,", f"a.png,t,Cyst={path}"):
        with pytest.raises(UserError, match="does not stay inside the root"):
            read(write(tmp_path, f"image,text,masks\n{row}\n"))
    write(tmp_path, "image,text\na.png,t\n")
    for options in (FolderOptions(table=path), FolderOptions(boxes_table=path)):
        with pytest.raises(UserError, match="does not stay inside the root"):
            read(tmp_path, options)


def test_a_linked_table_or_image_that_lies_outside_is_not_opened(tmp_path):
    write(tmp_path / "outside", "image,text\na.png,t\n")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "meta.csv").symlink_to(tmp_path / "outside" / "meta.csv")
    with pytest.raises(UserError, match="leads out of the root"):
        read(tmp_path / "root")


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ("a/b.png a-b.png", "a-b"),
        ("a.png a.jpg", "a"),
        ("ä.png ö.png", "_"),
        ("x.y.png x_y.png", "x_y"),
    ],
)
def test_names_that_would_be_stored_as_one_are_refused(tmp_path, rows, key):
    first, second = rows.split()
    write(tmp_path, f"image,text\n{first},t\nz.png,t\n{second},t\n")
    with pytest.raises(UserError, match=rf"'{first}' and '{second}' would both be stored as '{key}'"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["__a.png", "a" * 90 + ".png"])
def test_names_that_cannot_be_stored_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be stored"):
        read(write(tmp_path, f"image,text\n{name},t\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "file,text\na.png,t\n",
            r"meta\.csv has no column 'image' \(it has: file, text\): name the right one with --image",
        ),
        ("", r"meta\.csv has no column 'image' \(it has: nothing\)"),
        ("image,text,text\na.png,t,t\n", "has the column 'text' twice"),
        ("image,text\na.png,small, on the left\n", r"row 2 has more cells than the header.*quotes"),
        ('image,text\na.png,"never closed\nb.png,t\n', "cannot be read to its end"),
        ("image,boxes\na.png,[1\n", r"row 2: boxes are not JSON"),
        ('image,boxes\na.png,"[1,2,3,4]"\n', r"row 2: 1 is not a box"),
        ('image,boxes\na.png,"[[1,2,3]]"\n', r"row 2: \[1, 2, 3\] is not a box"),
        ('image,boxes\nb.png,\na.png,"[[1,2,3,0]]"\n', r"row 3: box \[1, 2, 3, 0\] of a\.png .* no area"),
        ('image,boxes\na.png,"[{""label"": ""Cyst""}]"\n', r"row 2: box .* not four numbers"),
        ("image,x,y,w,h\na.png,1,2,3,\n", r"row 2: box .* not four numbers"),
        ("image,labels,x,y,w,h\na.png,No Finding,1,2,3,4\n", r"row 2: a box of a\.png is labelled 'No Finding'"),
        ("image,masks\na.png,m.png\n", r"row 2: masks are name=path"),
        ("image,masks\na.png,=m.png\n", r"row 2: masks are name=path"),
        ("image,masks\na.png,Cyst=m.png;cyst=n.png\n", r"two masks would be stored as 'cyst'"),
        ("image,masks\na.png,{\n", r"masks are not JSON"),
    ],
)
def test_mistakes_in_the_table_are_named_with_their_row(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"image": "a.png"}\n{"image": \n', r"meta\.jsonl, row 2 is not JSON"),
        ('{"image": "a.png"}\n["b.png"]\n', r"row 2 is no object"),
        ('{"file": "a.png"}\n', r"no column 'image' \(it has: file\)"),
        ('{"image": "a.png", "masks": ["m.png"]}\n', "masks are name=path"),
        ('{"image": "a.png", "masks": {"Cyst": null}}\n', "masks are name=path"),
    ],
)
def test_mistakes_in_json_lines_are_named_too(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read(write(tmp_path, text, "meta.jsonl"))


def test_a_column_that_was_asked_for_must_be_there(tmp_path):
    write(tmp_path, "image,text\na.png,t\n")
    for name in ("id", "text", "labels", "split", "patient", "view", "boxes", "masks"):
        with pytest.raises(UserError, match=rf"no column 'other' .*--{name}"):
            read(tmp_path, FolderOptions(**{name: "other"}))  # type: ignore[arg-type]
    write(tmp_path, "file,x,y,w,h\na.png,1,2,3,4\n", "boxes.csv")
    with pytest.raises(UserError, match=r"boxes\.csv has no column 'image'.*--boxes_image"):
        read(tmp_path)
    write(tmp_path, "image,x,y,width,height\na.png,1,2,3,4\n", "boxes.csv")
    with pytest.raises(UserError, match=r"boxes\.csv has no column 'w' \(it has: image, x, y, width, height\)"):
        read(tmp_path)


def test_no_table_several_or_a_damaged_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no table \(meta\.csv, .*--table"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"holds no file rows\.csv"):
        read(tmp_path, FolderOptions(table="rows.csv"))
    write(tmp_path, many(), "meta.csv.gz")
    whole = (tmp_path / "meta.csv.gz").read_bytes()
    (tmp_path / "meta.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"meta\.csv\.gz cannot be read to its end"):
        read(tmp_path)
    json_lines(tmp_path, {"image": "a.png"})
    with pytest.raises(UserError, match=r"several tables \(meta\.jsonl, meta\.csv\.gz\)"):
        read(tmp_path)
    (tmp_path / "meta.csv.gz").unlink()
    (tmp_path / "meta.jsonl").write_bytes('{"image": "ä.png"}'.encode("latin-1"))
    with pytest.raises(UserError, match="text in UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize(
    "options", [{"val": -0.1}, {"val": 0.6, "fidelity": 0.6}, {"grounding": 1.1}, {"separator": ""}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="folder"):
        FolderOptions(**options)


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
    with path.open(newline="") as stream:
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
    patients: dict[str, set[str]] = {}
    for record in reading.records:
        patients.setdefault(record.patient_id, set()).add(record.split)
    assert all(len(one) == 1 for one in patients.values())
    splits = Counter(record.split for record in reading.records)
    assert (set(splits), splits["grounding"]) == ({"train", "val", "fidelity"}, 0)
    assert not set(patients) & {record.patient_id for record in read(boxed, NIH).records}
    assert len({row["patient"] for row in rows_of(root / "meta.csv")}) == 508 - 1
