"""The table of a folder: every way it may be written, and every mistake in it named."""

import csv
import io
import json

import pytest

from meddiff.common.errors import UserError
from meddiff.preparation.cohorts.folder import read
from meddiff.preparation.cohorts.folder_table import FolderOptions
from meddiff.preparation.prepare_cohort import read_cohort
from meddiff.shards.sample import Box, Phrase
from tests.builders.folder_tree import many, write_json_lines, write_text_table
from tests.builders.readings import only

ROWS = [
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
        "csv": lambda: write_text_table(tmp_path, as_csv()),
        "csv.gz": lambda: write_text_table(tmp_path, as_csv(), "meta.csv.gz"),
        "bom": lambda: write_text_table(tmp_path, "\ufeff" + as_csv(), "metadata.csv"),
        "crlf": lambda: write_text_table(tmp_path, as_csv().replace("\n", "\r\n")),
        "jsonl": lambda: write_text_table(tmp_path, lines, "meta.jsonl"),
        "jsonl.gz": lambda: write_text_table(tmp_path, lines, "metadata.jsonl.gz"),
        "bom.jsonl": lambda: write_text_table(tmp_path, "\ufeff" + lines, "meta.jsonl"),
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
    write_text_table(
        tmp_path,
        "name,file,report,tags,group,side,set\nx 1,img/x.tif,A text.,Drusen; Cyst ;,g,L,test\n",
        "rows.csv",
    )
    options = FolderOptions(
        table="rows.csv", image="file", id="name", text="report", labels="tags", separator=";", patient="group", view="side",
        split="set",
    )  # fmt: skip
    record = only(read(tmp_path, options))
    assert (record.key, record.path, record.patient_id, record.view, record.split) == (
        "x_1",
        "img/x.tif",
        "g",
        "L",
        "test",
    )
    assert (record.impression, record.labels) == ("A text.", ("Drusen", "Cyst"))


def test_json_values_that_are_numbers_or_null_are_not_lost(tmp_path):
    write_json_lines(
        tmp_path,
        {"image": "a.png", "id": 0, "patient": 0, "labels": 0, "text": None, "x": 0, "y": 0, "w": 4, "h": 4},
        {"image": "b.png", "id": 1, "patient": 0, "labels": [0, None, "Cyst"], "boxes": [], "masks": None},
    )
    first, second = read(tmp_path, FolderOptions(id="id", val=0.5, grounding=0.0)).records
    assert (first.key, first.patient_id, first.labels, first.impression) == ("0", "0", ("0",), "0")
    assert (second.patient_id, second.labels, second.split) == ("0", ("0", "Cyst"), first.split)
    assert first.boxes == (Box("0", 0, 0, 4, 4),)


@pytest.mark.parametrize("path", ["../a.png", "/etc/a.png", "b/../../a.png", "C:/a.png", "..\\\\a.png"])
def test_paths_that_lead_out_of_the_root_are_refused(tmp_path, path):
    for row in (f"{path},t,", f"a.png,t,Cyst={path}"):
        with pytest.raises(UserError, match="does not stay inside the root"):
            read(write_text_table(tmp_path, f"image,text,masks\n{row}\n"))
    write_text_table(tmp_path, "image,text\na.png,t\n")
    for options in (FolderOptions(table=path), FolderOptions(boxes_table=path)):
        with pytest.raises(UserError, match="does not stay inside the root"):
            read(tmp_path, options)


def test_a_linked_table_or_image_that_lies_outside_is_not_opened(tmp_path):
    write_text_table(tmp_path / "outside", "image,text\na.png,t\n")
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
    write_text_table(tmp_path, f"image,text\n{first},t\nz.png,t\n{second},t\n")
    with pytest.raises(UserError, match=rf"'{first}' and '{second}' would both be stored as '{key}'"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["__a.png", "a" * 90 + ".png"])
def test_names_that_cannot_be_stored_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be stored"):
        read(write_text_table(tmp_path, f"image,text\n{name},t\n"))


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
        read(write_text_table(tmp_path, text))
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
        read(write_text_table(tmp_path, text, "meta.jsonl"))


def test_a_column_that_was_asked_for_must_be_there(tmp_path):
    write_text_table(tmp_path, "image,text\na.png,t\n")
    for name in ("id", "text", "labels", "split", "patient", "view", "boxes", "masks"):
        with pytest.raises(UserError, match=rf"no column 'other' .*--{name}"):
            read(tmp_path, FolderOptions(**{name: "other"}))  # type: ignore[arg-type]
    write_text_table(tmp_path, "file,x,y,w,h\na.png,1,2,3,4\n", "boxes.csv")
    with pytest.raises(UserError, match=r"boxes\.csv has no column 'image'.*--boxes_image"):
        read(tmp_path)
    write_text_table(tmp_path, "image,x,y,width,height\na.png,1,2,3,4\n", "boxes.csv")
    with pytest.raises(UserError, match=r"boxes\.csv has no column 'w' \(it has: image, x, y, width, height\)"):
        read(tmp_path)


def test_no_table_several_or_a_damaged_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no table \(meta\.csv, .*--table"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"holds no file rows\.csv"):
        read(tmp_path, FolderOptions(table="rows.csv"))
    write_text_table(tmp_path, many(), "meta.csv.gz")
    whole = (tmp_path / "meta.csv.gz").read_bytes()
    (tmp_path / "meta.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"meta\.csv\.gz cannot be read to its end"):
        read(tmp_path)
    write_json_lines(tmp_path, {"image": "a.png"})
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
