"""NIH ChestX-ray14: small trees with the official names and headers, and the real tables that torchxrayvision carries."""

import csv
import gzip
from collections import Counter

import pytest

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.nih import CLASSES, NihOptions, read
from meddiff.preparation.prepare_cohort import read_cohort
from meddiff.preparation.safe_files import inside
from meddiff.shards.sample import Box, Phrase
from tests.builders.files import touch_images
from tests.builders.nih_tree import entry, make_release, write_release
from tests.builders.readings import carried, rules, split_of, splits_of_patients

ALL_TRAIN = NihOptions(val=0.0, fidelity=0)


@pytest.mark.parametrize("old", [True, False])
def test_labels_boxes_and_paths_of_both_releases(tmp_path, old):
    entries = [
        entry("00000001_000.png", "Cardiomegaly|Emphysema", old=old),
        entry("00000002_000.png", "No Finding", old=old),
        entry("00000003_001.png", "Effusion|Infiltration|Nodule", view="AP", old=old),
    ]
    boxes = [
        "00000003_001.png,Infiltrate,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661",
        "00000003_001.png,Nodule,10,20,30,40,,,", "00000003_001.png,Effusion,1000.5,0,100,1024",
        "00000003_001.png,Pneumonia,-5,3,9,9",
    ]  # fmt: skip
    places = {"00000001_000.png": "001", "00000002_000.png": "012", "00000003_001.png": "002"}
    images = {name: f"images_{place}/images" for name, place in places.items()}
    write_release(tmp_path, entries, boxes, [*places], ["00000099_000.png"], images, old)
    reading = read(tmp_path, ALL_TRAIN)
    opacities = (
        Box("Lung Opacity", 225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661),
        Box("Lung Opacity", 10, 20, 30, 40),
    )
    fluid, infection = Box("Pleural Effusion", 1000.5, 0, 100, 1024), Box("Pneumonia", -5, 3, 9, 9)
    heart, healthy, boxed = reading.records
    assert (heart.key, heart.path) == ("00000001_000", "images_001/images/00000001_000.png")
    assert (heart.labels, heart.impression, heart.view) == (("Cardiomegaly",), "Cardiomegaly", "PA")
    assert (heart.boxes, heart.phrases) == ((), ())
    assert heart.attributes == {"nih_labels": ["Cardiomegaly", "Emphysema"]}
    assert (healthy.labels, healthy.impression) == ((NO_FINDING,), NO_FINDING)
    assert (boxed.path, boxed.view) == ("images_002/images/00000003_001.png", "AP")
    assert boxed.labels == ("Lung Opacity", "Pleural Effusion", "Pneumonia")
    assert boxed.impression == "Lung Opacity Pleural Effusion Pneumonia"
    assert boxed.boxes == (*opacities, fluid, infection)
    assert boxed.phrases == (
        Phrase("Lung Opacity", "Lung Opacity", opacities),
        Phrase("Pleural Effusion", "Pleural Effusion", (fluid,)),
        Phrase("Pneumonia", "Pneumonia", (infection,)),
    )
    assert boxed.split == "grounding"
    assert boxed.attributes["native_size"] == [1024, 1024]
    assert reading.rejected == []


def test_every_label_of_the_release_goes_to_its_class(tmp_path):
    assert set(CLASSES.values()) == {*FINDINGS, NO_FINDING, ""}
    wanted = {
        "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly", "Consolidation": "Consolidation", "Edema": "Edema",
        "Effusion": "Pleural Effusion", "Infiltration": "Lung Opacity", "Mass": "Lung Opacity", "Nodule": "Lung Opacity",
        "Pneumonia": "Pneumonia", "Pneumothorax": "Pneumothorax", "No Finding": NO_FINDING,
        "Emphysema": None, "Fibrosis": None, "Hernia": None, "Pleural_Thickening": None,
    }  # fmt: skip
    names = {f"{n:08d}_000": label for n, label in enumerate(wanted, 1)}
    train = [f"{name}.png" for name in names]
    write_release(
        tmp_path, [entry(f"{name}.png", label) for name, label in names.items()], None, train, ["00000099_000.png"]
    )
    found = {record.key: record.labels for record in read(tmp_path, ALL_TRAIN).records}
    assert found == {name: (wanted[label],) for name, label in names.items() if wanted[label]}


def test_all_that_is_left_out_has_its_reason(tmp_path):
    entries = [
        entry("00000001_000.png", "Edema"), entry("00000001_000.png", "Mass"), entry("00000002_000.png", "Edema", "3"),
        entry("../00000004_000.png", "Edema", "4"), entry("/00000004_000.png", "Edema", "4"),
        entry("00000004_000.jpg", "Edema"), entry("0000005_000.png", "Edema", "5"), entry("00000006_000.png", "Edema", "²"),
        entry("٠٠٠٠٠٠٠٧_000.png", "Edema", "7"), entry("00000008_000.png", "Unicorn|Edema"),
        entry("00000009_000.png", "Edema", view="LL"), entry("00000010_000.png", "Edema", view=""),
        entry("00000011_000.png", "Hernia|Fibrosis"), entry("00000012_000.png", ""),
        entry("00000013_000.png", "No Finding|Hernia"), entry("00000014_000.png", "Edema"),
        entry("00000015_000.png", "Edema"), entry("00000016_000.png", "Edema"), entry("00000016_001.png", "Edema"),
        ",,,,,,,,,,",
    ]  # fmt: skip
    boxes = [
        "00000016_000.png,Mass,1,2,3,4", "00000016_000.png,Mass,1,2,3,4", "00000099_000.png,Mass,1,2,3,4",
        "../00000016_000.png,Mass,1,2,3,4", "00000016_000.png,Unicorn,1,2,3,4", "00000016_000.png,Hernia,1,2,3,4",
        "00000016_000.png,No Finding,1,2,3,4", "00000016_000.png,Mass,1,2,,4", "00000016_000.png,Mass,1,2,x,4",
        "00000016_000.png,Mass,1,nan,3,4", "00000016_000.png,Mass,1,2,0,4", "00000016_000.png,Mass,1024,2,3,4",
        "00000016_000.png,Mass,-3,2,3,4", "00000016_000.png,Mass,1,2,3,inf", ",,,,,",
    ]  # fmt: skip
    present = [f"000000{n:02d}_000.png" for n in (1, 2, 8, 9, 10, 11, 12, 13, 15, 16)] + ["00000016_001.png"]
    write_release(
        tmp_path, entries, boxes, ["00000001_000.png", "00000016_001.png"], ["00000016_000.png"], images=present
    )
    reading = read(tmp_path, ALL_TRAIN)
    row = "00000016_000.png (BBox_List_2017.csv, row {})".format
    assert rules(reading) == {
        "repeated box": [row(3)],
        "box of an image that is not listed": [
            "00000099_000.png (BBox_List_2017.csv, row 4)", "../00000016_000.png (BBox_List_2017.csv, row 5)",
        ],
        "box of an unknown label": [row(6)],
        "box outside the eight classes": [row(7), row(8)],
        "box is not four numbers": [row(9), row(10), row(11), row(15)],
        "box without area or outside the image": [row(12), row(13), row(14)],
        "malformed image or patient": [
            "00000002_000.png", "../00000004_000.png", "/00000004_000.png", "00000004_000.jpg", "0000005_000.png",
            "00000006_000.png", "٠٠٠٠٠٠٠٧_000.png", "",
        ],
        "repeated image": ["00000001_000.png"],
        "unknown label": ["00000008_000.png"],
        "view is not PA or AP": ["00000009_000.png", "00000010_000.png"],
        "no image file": ["00000014_000.png"],
        "only findings outside the eight": ["00000011_000.png", "00000012_000.png", "00000013_000.png"],
        "in neither official list": ["00000015_000.png"],
        "training image of a patient of the test list": ["00000016_001.png"],
    }  # fmt: skip
    assert split_of(reading) == {"00000001_000": "train", "00000016_000": "grounding"}
    assert reading.records[0].labels == ("Edema",)
    assert reading.records[1].boxes == (Box("Lung Opacity", 1, 2, 3, 4),)
    assert reading.options["boxes_removed"]["box without area or outside the image"] == 3
    assert reading.options["counts"]["boxes used"] == 1
    steps = reading.funnel.rows()
    assert steps[0] == ("read", 20, 0)
    assert steps[-1][1] == len(reading.records)
    assert {rule: removed for rule, _, removed in steps if removed} == {
        rule: len(items) for rule, items in rules(reading).items() if "box" not in rule
    }


def test_an_image_with_a_box_is_never_healthy_even_when_the_box_is_not_used(tmp_path):
    entries = [entry("00000001_000.png", "No Finding"), entry("00000002_000.png", "No Finding")]
    boxes = ["00000001_000.png,Mass,1,2,3,4", "00000002_000.png,Nodule,1,2,3,4"]
    write_release(tmp_path, entries, boxes)
    reading = read(tmp_path, NihOptions(opacities=("Mass",)))
    assert [(record.key, record.labels) for record in reading.records] == [("00000001_000", ("Lung Opacity",))]
    assert rules(reading)["only findings outside the eight"] == ["00000002_000.png"]


def test_opacities_can_be_chosen_and_the_boxes_follow_with_their_own_spelling(tmp_path):
    entries = [
        entry(f"0000000{n}_000.png", label) for n, label in ((1, "Infiltration"), (2, "Mass"), (3, "Mass|Edema"))
    ]
    boxes = ["00000001_000.png,Infiltrate,1,2,3,4", "00000002_000.png,Mass,1,2,3,4", "00000003_000.png,Mass,1,2,3,4"]
    write_release(tmp_path, entries, boxes, ["00000001_000.png", "00000003_000.png"], ["00000002_000.png"])
    reading = read(tmp_path, NihOptions(opacities=("Infiltration",), val=0.0))
    assert [(record.key, record.labels, len(record.boxes), record.split) for record in reading.records] == [
        ("00000001_000", ("Lung Opacity",), 1, "grounding"), ("00000003_000", ("Edema",), 0, "train"),
    ]  # fmt: skip
    assert rules(reading)["only findings outside the eight"] == ["00000002_000.png"]
    assert len(rules(reading)["box outside the eight classes"]) == 2


def test_one_patient_is_one_however_the_number_is_written(tmp_path):
    spellings = ("7", "007", "00000007")
    names = [f"00000007_{n:03d}.png" for n in range(3)]
    write_release(tmp_path, [entry(name, "Edema", one) for name, one in zip(names, spellings, strict=True)])
    reading = read(tmp_path, NihOptions(val=0.5))
    assert {record.patient_id for record in reading.records} == {"00000007"}  # as RSNA's mapping writes it
    assert len({record.split for record in reading.records}) == 1


@pytest.mark.parametrize("lists", [True, False])
def test_no_patient_is_in_two_splits_and_those_with_boxes_are_in_grounding_only(tmp_path, lists):
    reading = read_cohort("nih", make_release(tmp_path, lists), NihOptions(val=0.2, fidelity=60))
    patients = splits_of_patients(reading)
    assert all(len(one) == 1 for one in patients.values())
    counts = Counter(next(iter(one)) for one in patients.values())
    boxed = {f"{patient:08d}_001" for patient in (*range(20), *range(280, 300))}
    assert {record.key for record in reading.records if record.split == "grounding"} == boxed
    assert {record.key for record in reading.records if record.boxes} == boxed
    assert {record.key for record in reading.records if record.patient_id in {key[:8] for key in boxed}} == boxed
    assert Counter(record.split for record in reading.records)["fidelity"] == 60
    if lists:
        assert all(int(record.key[:8]) >= 280 for record in reading.records if record.split == "fidelity")
        assert all(int(record.key[:8]) < 280 for record in reading.records if record.split in ("train", "val"))
        assert counts["train"] + counts["val"] == 260
        assert 30 <= counts["val"] <= 74  # 52 expected, standard deviation 6.4
        assert reading.options["files"][-2:] == ["train_val_list.txt", "test_list.txt"]
    else:
        held = 360 - counts["train"] - counts["val"]
        assert 19 <= held <= 55  # 36, 5.7
        assert "test_list.txt" not in reading.options["files"]
    # not the first 60 of the list, and healthy and ill ones as they come (20 and 40 expected)
    chosen = sorted(record.key for record in reading.records if record.split == "fidelity")
    assert 8 <= sum(key.endswith("000") for key in chosen) <= 33
    left = [name.removesuffix(".png") for name in rules(reading)["test image not drawn for the fidelity set"]]
    assert chosen != sorted([*chosen, *left])[:60]
    assert len(rules(reading)["image without a box of a patient with boxes"]) == 80


def test_the_order_of_the_rows_does_not_change_anything_and_the_seed_does(tmp_path):
    options = NihOptions(val=0.2, fidelity=60)
    first = read(make_release(tmp_path / "a", lists=True), options)
    assert read(make_release(tmp_path / "b", lists=True, order=1), options).records == first.records
    assert split_of(read(tmp_path / "a", NihOptions(val=0.2, fidelity=60, seed=1))) != split_of(first)


def test_the_kaggle_layout_one_folder_of_images_and_packed_tables_give_the_same(tmp_path):
    here = read(make_release(tmp_path / "a", lists=True)).records
    make_release(tmp_path / "b" / "archive", lists=True)
    (tmp_path / "b" / "archive" / "images_001" / "images").rename(tmp_path / "b" / "archive" / "images")
    for name in ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"):
        plain = tmp_path / "b" / "archive" / name
        with gzip.open(f"{plain}.gz", "wb") as stream:
            stream.write(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))  # saved by a spreadsheet
        plain.unlink()
    there = read(tmp_path / "b").records
    assert {record.path for record in there} == {f"archive/images/{record.key}.png" for record in here}
    assert [(r.key, r.split, r.labels, r.boxes) for r in there] == [(r.key, r.split, r.labels, r.boxes) for r in here]


def test_missing_and_damaged_files_are_named_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"Data_Entry_2017_v2020\.csv.*nihcc"):
        read(tmp_path)
    make_release(tmp_path, lists=True)
    (tmp_path / "test_list.txt").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"holds train_val_list\.txt but not the other.*test_list\.txt"):
        read(tmp_path)
    (tmp_path / "test_list.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test_list\.txt is empty"):
        read(tmp_path)
    (tmp_path / "test_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"test_list\.txt cannot be read"):
        read(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "test_list.txt")
    (tmp_path / "BBox_List_2017.csv").write_text('Image Index,Finding Label,"Bbox [x,y,w,h]"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"BBox_List_2017\.csv has no column"):
        read(tmp_path)
    (tmp_path / "BBox_List_2017.csv").unlink()
    assert not any(record.boxes for record in read(tmp_path).records)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("Image Index,Finding Labels,Patient ID\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"Data_Entry_2017_v2020\.csv has no column 'View Position'"):
        read(tmp_path)
    make_release(tmp_path, lists=True)
    (tmp_path / "images_001" / "images").rename(tmp_path / "images_001" / "pictures")
    with pytest.raises(UserError, match="images_001/images"):
        read(tmp_path)


def test_images_behind_a_link_that_leads_out_are_not_opened(tmp_path):
    make_release(tmp_path / "root", lists=True)
    (tmp_path / "root" / "images_001").rename(tmp_path / "outside")
    (tmp_path / "root" / "images_001").symlink_to(tmp_path / "outside")
    record = read(tmp_path / "root").records[0]
    with pytest.raises(UserError, match="leads out of the root"):
        inside(tmp_path / "root", record.path)


@pytest.mark.parametrize("options", [{"opacities": ("Edema",)}, {"val": 1.0}, {"val": -0.1}, {"fidelity": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="nih"):
        NihOptions(**options)


def test_the_real_boxes_and_entries_are_all_read(tmp_path):
    tables = [carried(name) for name in ("BBox_List_2017.csv.gz", "Data_Entry_2017_v2020.csv.gz")]
    for table in tables:
        (tmp_path / table.name).write_bytes(table.read_bytes())
    listed, entries = ([*csv.reader(gzip.decompress(table.read_bytes()).decode().splitlines())][1:] for table in tables)
    assert (len(listed), len({row[0] for row in listed}), len(entries)) == (984, 880, 112_120)
    boxed = {row[0] for row in listed}
    patients = {name[:8] for name in boxed}
    others = [row[0] for row in entries if row[0][:8] not in patients][::200]
    same = [row[0] for row in entries if row[0][:8] in patients and row[0] not in boxed]
    touch_images(tmp_path / "images", (*boxed, *others, *same[::100]))
    reading = read_cohort("nih", tmp_path)
    names = dict.fromkeys(("Infiltrate", "Mass", "Nodule"), "Lung Opacity") | {"Effusion": "Pleural Effusion"}
    boxes = Counter((f"{r.key}.png", b.label, b.x, b.y, b.w, b.h) for r in reading.records for b in r.boxes)
    assert boxes == Counter((row[0], names.get(row[1], row[1]), *map(float, row[2:6])) for row in listed)
    grounding = {f"{record.key}.png" for record in reading.records if record.split == "grounding"}
    assert grounding == boxed == {f"{record.key}.png" for record in reading.records if record.patient_id in patients}
    assert Counter(label for _, label, *_ in boxes.elements()) == {
        "Atelectasis": 180, "Cardiomegaly": 146, "Lung Opacity": 287, "Pleural Effusion": 153, "Pneumonia": 120,
        "Pneumothorax": 98,
    }  # fmt: skip
    reasons = Counter(one.rule for one in reading.rejected)
    assert set(reasons) == {
        "no image file", "only findings outside the eight", "image without a box of a patient with boxes",
    }  # fmt: skip
    assert len(reading.records) + sum(reasons.values()) == 112_120
    # by hand: what remains of the others is what has one of the eight, or nothing
    written = {row[0]: set(row[1].split("|")) for row in entries}
    outside = {"Emphysema", "Fibrosis", "Hernia", "Pleural_Thickening"}
    used = {f"{record.key}.png" for record in reading.records}
    assert used - boxed == {name for name in others if written[name] - outside}
    healthy = {f"{record.key}.png" for record in reading.records if record.labels == (NO_FINDING,)}
    assert healthy == {name for name in others if written[name] == {"No Finding"}}
    effusions = {f"{record.key}.png" for record in reading.records if "Pleural Effusion" in record.labels}
    assert effusions == {name for name in (*others, *boxed) if "Effusion" in written[name]}
