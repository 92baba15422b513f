"""Tables of a folder as other programs write them: empty cells as words, lists, fractions, cells without end."""

import csv

import numpy as np
import pytest
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.preparation.cohorts.folder import read
from meddiff.preparation.cohorts.folder_table import FolderOptions
from meddiff.preparation.prepare_cohort import dry_run, read_cohort
from meddiff.shards.sample import Box
from tests.builders.folder_tree import write_json_lines, write_text_table
from tests.builders.readings import by_key, only, rule_of, rules, splits_of_patients

CANNOT = "a cell that cannot be used"


def test_several_captions_are_kept_and_an_object_is_told_with_its_row(tmp_path):
    write_json_lines(
        tmp_path,
        {
            "image": "im0.png",
            "text": ["Large right effusion.", "Right effusion, large."],
            "labels": ["Pleural Effusion"],
        },
        {"image": "im1.png", "text": {"en": "Edema.", "de": "\u00d6dem."}, "labels": ["Edema"]},
        {"image": "im2.png", "text": "Effusion and edema.", "labels": "['Pleural Effusion', 'Edema']"},
        {
            "image": "im3.png",
            "text": ["nan", "One."],
            "patient": ["p"],
            "view": None,
            "labels": "nan",
            "label": "['Edema']",
        },
        {"image": "im4.png", "text": "t", "patient": {"id": 4}},
        {"image": "im5.png", "text": "t", "split": ["train", "val"]},
        {"image": {"bytes": "x"}, "text": "t"},
        {"image": "im7.png", "text": "t", "boxes": [{"x": 1, "y": 1, "w": 9, "h": 9, "label": ["a", "b"]}]},
    )
    reading = read(tmp_path)
    found = by_key(reading)
    texts = ("Large right effusion.", "Right effusion, large.")
    assert (found["im0"].impression, found["im0"].captions) == (texts[0], texts)
    assert (found["im2"].labels, found["im2"].captions) == (("Pleural Effusion", "Edema"), ())
    assert (found["im3"].impression, found["im3"].captions, found["im3"].patient_id) == ("One.", (), "p")
    assert found["im3"].labels == ("Edema",)
    taken = rules(reading)[CANNOT]
    assert [item.split("row ")[1] for item in taken] == ["2)", "5)", "6)", "7)", "8)"]
    assert reading.rejected[0].detail.startswith("text is an object: {'en': 'Edema.'")
    assert reading.funnel.rows()[1] == (CANNOT, 3, 5)


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "N/A", "-", "-1", "-9999", "\u200b"])
def test_words_and_numbers_for_nothing_are_no_values(tmp_path, word):
    head = "image,text,labels,split,patient,view,boxes,masks,x,y,w,h,label,phrase"
    nothing = ",".join([word] * 4)
    words = "" if word.startswith("-") else word  # a minus is no list
    rows = [
        f"a.png,{word},Edema,train,p,PA,{words},{words},{nothing},,",
        f"b.png,Text.,{word},train,{word},{word},,,,,,,{word},",
        f"c.png,{word},Edema|{word},train,{word},PA,,,1,2,30,40,{word},{word}",
        f"d.png,{word},{word},train,q,PA,,,,,,,,",
        f"{word if word != '-1' and word != '-9999' else ''},t,Edema,train,q,PA,,,,,,,,",
    ]
    reading = read(write_text_table(tmp_path, "\n".join([head, *rows, ""])))
    a, b, c = (by_key(reading)[name] for name in "abc")
    assert (a.impression, a.boxes) == ("Edema", ())
    assert (b.labels, b.view, b.patient_id, b.impression) == ((), "", "b.png", "Text.")
    assert (c.labels, c.boxes, c.patient_id) == (("Edema",), (Box("Edema", 1, 2, 30, 40),), "c.png")
    assert [phrase.text for phrase in c.phrases] == ["Edema"]
    assert rule_of(reading) == {
        "d.png (meta.csv, row 5)": "no text and no label",
        "(no name) (meta.csv, row 6)": "no image path",
    }
    assert reading.options["read_as_empty"] == {"labels": 2, "patient": 2, "text": 3, "view": 1}


def test_all_splits_unknown_are_drawn_and_a_mapped_word_is_a_label(tmp_path):
    write_text_table(tmp_path, "image,text,labels,split\na.png,t,None,nan\nb.png,t,Edema,NaN\n")
    found = by_key(read(tmp_path, FolderOptions(label_map={"None": "No Finding"}, val=0.0)))
    assert {key: (one.labels, one.split) for key, one in found.items()} == {
        "a": (("No Finding",), "train"),
        "b": (("Edema",), "train"),
    }


def test_a_patient_written_as_a_fraction_is_in_one_split(tmp_path):
    rows = [f"{n}.png,t,{n // 2}{'.0' * (n % 2)}" for n in range(100)]
    write_text_table(tmp_path, "\n".join(["image,text,patient", *rows]))
    patients = splits_of_patients(read(tmp_path, FolderOptions(val=0.5)))
    assert len(patients) == 50
    assert all(len(one) == 1 for one in patients.values())


def test_boxes_as_fractions_are_refused_or_left_out_by_a_rule_of_their_own(tmp_path):
    write_text_table(tmp_path, "image,text\na.png,t\nb.png,t\n")
    fraction, pixels = "a.png,0.25,0.4,0.3,0.35\n", "b.png,20,30,40,50\n"
    write_text_table(tmp_path, f"image,x,y,w,h\n{fraction}{fraction.replace('a', 'b')}", "boxes.csv")
    with pytest.raises(UserError, match=r"all 2 boxes look like fractions .*row 2.*must be in pixels"):
        read(tmp_path)
    write_text_table(tmp_path, f"image,x,y,w,h\n{fraction}{pixels}b.png,0,0,1,1\n", "boxes.csv")
    reading = read(tmp_path)
    assert rules(reading) == {"box in fractions of the image, not in pixels": ["a.png (boxes.csv, row 2)"]}
    assert len(by_key(reading)["b"].boxes) == 2
    (tmp_path / "boxes.csv").unlink()
    write_text_table(tmp_path, "image,text,x,y,w,h\na.png,t,0.1,0.2,0.5,0.75\n")
    with pytest.raises(UserError, match=r"row 2: box .*fractions of the image; boxes are in pixels"):
        read(tmp_path)
    write_text_table(tmp_path, "image,text,x,y,w,h\na.png,t,0,0,1,1\n")  # whole, but all there is
    with pytest.raises(UserError, match="all 1 boxes look like fractions"):
        read_cohort("folder", tmp_path)


@pytest.mark.parametrize("form", ["meta.csv", "meta.csv.gz"])
def test_a_cell_may_be_longer_than_csv_s_own_limit(tmp_path, form):
    csv.field_size_limit(131_072)
    runs = "1 2 " * 80_000
    write_text_table(tmp_path, f"image,text,EncodedPixels\na.png,Chest.,{runs}\nb.png,Chest.,\n", form)
    first, second = read(tmp_path).records
    assert first.attributes["table"]["EncodedPixels"] == runs.strip()
    assert second.attributes == {}


def test_a_mask_s_name_too_long_for_a_tar_is_told_when_the_table_is_read(tmp_path):
    name = "very long name " * 5
    write_text_table(tmp_path, f"image,text,masks\n{'k' * 70}.png,t,{name}=m.png\na.png,t,Cyst=m.png\n")
    reading = read(tmp_path)
    assert [one.rule for one in reading.rejected] == [CANNOT]
    assert "too long to be stored" in reading.rejected[0].detail


def test_a_path_longer_than_any_file_s_is_an_unreadable_image(tmp_path, capsys):
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "a.png")
    write_text_table(tmp_path, f"id,image,text\n1,{'x' * 300}.png,t\n2,a.png,t\n")
    dry_run(read_cohort("folder", tmp_path, FolderOptions(id="id")))
    assert "name too long" in capsys.readouterr().out.lower()


def test_half_a_character_is_told_with_its_row(tmp_path):
    write_text_table(
        tmp_path, '{"image": "a.png", "text": "t"}\n{"image": "b.png", "text": "\\ud800 t"}\n', "meta.jsonl"
    )
    with pytest.raises(UserError, match="row 2 is not JSON"):
        read(tmp_path)


def test_a_dry_run_tells_of_masks_and_of_boxes_that_are_corners(tmp_path, capsys):
    picture = Image.fromarray(np.arange(6400, dtype=np.uint16).reshape(80, 80).astype(np.uint8))
    for name in ("a.png", "b.png", "c.png", "m.png"):
        picture.save(tmp_path / name)
    picture.crop((0, 0, 40, 40)).save(tmp_path / "small.png")
    corners = "40,40,70,75"
    rows = [f"a.png,t,Cyst=m.png,{corners}", f"b.png,t,Cyst=small.png,{corners}", f"c.png,t,Cyst=gone.png,{corners}"]
    write_text_table(tmp_path, "\n".join(["image,text,masks,x,y,w,h", *rows, ""]))
    dry_run(read_cohort("folder", tmp_path))
    said = capsys.readouterr().out
    assert "b.png: mask small.png: 40 x 40 pixels" in said
    assert "c.png: mask gone.png: no such file" in said
    assert "1 of 1 boxes reach out of their images: boxes are x, y, width and height, not two corners" in said


def test_no_box_of_one_record_is_lost_from_the_reading(tmp_path):
    write_text_table(tmp_path, "image,text,x,y,w,h\na.png,t,-5,-5,20,20\n")
    assert only(read(tmp_path)).boxes == (Box("", -5, -5, 20, 20),)
