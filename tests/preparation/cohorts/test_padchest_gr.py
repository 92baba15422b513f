"""PadChest-GR: what a sentence becomes, whose boxes it has, what is denied, and how each bad file or value is named."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS, NO_FINDING
from meddiff.preparation.cohorts.padchest_gr import PadchestGrOptions, choose_boxes, read, readers_agree
from meddiff.preparation.cohorts.padchest_gr_labels import CLASSES, NAMES, classes_of
from meddiff.preparation.images import read_image
from meddiff.preparation.prepare_cohort import read_cohort
from meddiff.shards.access import access_of
from meddiff.shards.sample import Box
from tests.builders.padchest_gr_tree import FOLDER, REPORTS, denied, row, said, study, write_padchest
from tests.builders.readings import by_key, only, rules

A, B = [0.1, 0.25, 0.5, 0.75], [0.125, 0.25, 0.5, 0.75]
FAR = [0.7, 0.7, 0.9, 0.9]


def test_sentences_are_phrases_with_boxes_in_pixels_and_denials_without(tmp_path):
    findings = (
        said("Small left pleural effusion", "Pleural Effusion", boxes=[A], extra=[B]),
        said("Nodule and laminar atelectasis.", "nodule", "laminar atelectasis", boxes=[FAR]),
        denied("No pneumothorax.", "pneumothorax"),
        denied("Cardiac silhouette of normal size."),
        denied("No rib fractures."),
        denied("No right pleural effusion."),
    )
    write_padchest(tmp_path, [study("a_1.png", *findings)], [row("a_1.png", patient="77")])
    record = only(read(tmp_path))
    assert (record.key, record.path, record.split, record.patient_id) == ("a_1", f"{FOLDER}/a_1.png", "grounding", "77")
    # 80 x 64 pixels: x by 80, y by 64
    first, second = Box("Pleural Effusion", 8, 16, 32, 32), Box("Pleural Effusion", 10, 16, 30, 32)
    phrases = {(one.text, one.label): one.boxes for one in record.phrases}
    assert phrases.pop(("Small left pleural effusion", "Pleural Effusion")) == (first, second)
    (atelectasis,), (nodule,) = (
        phrases.pop(("Nodule and laminar atelectasis.", one)) for one in ("Atelectasis", "nodule")
    )
    assert (atelectasis.x, atelectasis.y, atelectasis.w, atelectasis.h) == pytest.approx((56, 44.8, 16, 12.8))
    assert (nodule.label, nodule.w) == ("nodule", atelectasis.w)
    assert phrases == {
        ("No pneumothorax.", "Pneumothorax"): (),
        ("Cardiac silhouette of normal size.", "Cardiomegaly"): (),
        ("No rib fractures.", "Other"): (),
        ("No right pleural effusion.", "Pleural Effusion"): (),
    }
    assert record.labels == ("Atelectasis", "Pleural Effusion", "nodule")
    assert record.attributes["denied"] == ["Cardiomegaly", "Pneumothorax"], "what is there on one side is not absent"
    assert record.attributes["native_size"] == [80, 64]
    assert record.impression.startswith("Small left pleural effusion. Nodule and laminar atelectasis. No pneumothorax.")


def test_splits_patients_and_access_are_as_given(tmp_path):
    rows = [row("a.png", "train", "1"), row("a.png", "train", "1"), row("b.png", "validation", "2"), row("c.png")]
    studies = [study(f"{name}.png", denied("Normal.")) for name in "abc"]
    found = by_key(read_cohort("padchest-gr", write_padchest(tmp_path, studies, rows)))
    assert {key: (one.split, one.patient_id) for key, one in found.items()} == {
        "a": ("train", "1"),
        "b": ("val", "2"),
        "c": ("grounding", "c.png"),
    }
    assert {one.labels for one in found.values()} == {(NO_FINDING,)}
    assert access_of("padchest-gr") == "credentialed"
    write_padchest(tmp_path, studies, [*rows[:2], row("b.png", "validation", "1"), row("c.png")])
    with pytest.raises(UserError, match="patient '1' is in two splits"):
        read_cohort("padchest-gr", tmp_path)


def test_two_readers_are_joined_chosen_or_must_agree(tmp_path):
    one, two, far = Box("", 0, 0, 0.4, 0.4), Box("", 0.1, 0, 0.4, 0.4), Box("", 0.6, 0.6, 0.2, 0.2)
    assert choose_boxes([one, far], [two, one], "both") == (one, far, two)
    assert choose_boxes([one, far], [two], "first") == (one, far)
    assert choose_boxes([one, far], [two], "agreed") == (one, two), "an overlap of 0.6"
    assert choose_boxes([far], [two], "agreed") == ()
    assert choose_boxes([], [two], "agreed") == choose_boxes([], [two], "both") == (two,)
    assert choose_boxes([], [two], "first") == ()
    # by hand: 0.3 x 0.4 is shared of 0.5 x 0.4, and of the union with what one reader saw alone
    assert readers_agree([one], [two]) == pytest.approx(0.6)
    assert readers_agree([one, far], [two]) == pytest.approx(0.12 / 0.24)
    assert readers_agree([one, one], [one]) == pytest.approx(1)
    assert readers_agree([one], [far]) == 0
    findings = said("Effusion.", "pleural effusion", boxes=[A, FAR], extra=[B])
    write_padchest(tmp_path, [study("a.png", findings, denied("No edema."))], [row("a.png")])
    for readers, number in (("both", 3), ("first", 2), ("agreed", 2)):
        reading = read(tmp_path, PadchestGrOptions(readers=readers))
        assert len(only(reading).boxes) == number
        assert reading.options["counts"]["sentences with boxes of two readers"] == 1
        assert 0 < reading.options["counts"]["agreement of the readers (mean IoU)"] < 1


def test_labels_are_mapped_and_words_tell_what_is_denied():
    assert {finding for some in CLASSES.values() for finding in some} == set(FINDINGS) == set(NAMES)
    assert classes_of("x", ["hydropneumothorax", "infiltrates", "scoliosis", "normal"], True) == (
        "Lung Opacity", "Pleural Effusion", "Pneumothorax", "scoliosis",
    )  # fmt: skip
    assert classes_of("No effusion.", [], True) == (), "words speak for denials alone"
    for text, classes in {
        "No pericardial effusion.": ("Other",),
        "Neither infiltrates nor effusions.": ("Lung Opacity", "Pleural Effusion"),
        "Heart size is normal.": ("Cardiomegaly",),
        "No enlarged lymph nodes.": ("Other",),
    }.items():
        assert classes_of(text, [], False) == classes
    assert classes_of("No effusion.", ["scoliosis"], False) == ("scoliosis",), "labels come first"


def test_what_cannot_be_used_is_left_out_with_its_place_and_reason(tmp_path):
    bad = (
        said("Box out.", "pneumonia", boxes=[[0.1, 0.1, 1.2, 0.4], [0.1, 0.1, 1.005, 0.4]]),
        said("No area.", "pneumonia", boxes=[[0.5, 0.1, 0.5, 0.4]], extra=[[0.5, 0.5, 0.4, 0.9]]),
        said("  ", "pneumonia"),
        said("Nobody knows what.", "unchanged"),
        denied("No edema.", "edema") | {"boxes": [A]},
    )
    studies = [
        study("a.png", *bad),
        study("a.png", denied("Again.")),
        study("../b.png", denied("Normal.")),
        study("c.png", denied("Normal.")),
        study("d.png", said("", "nodule")),
        study("gone.png", denied("Normal.")),
    ]
    names = ("a.png", "../b.png", "d.png", "gone.png")
    reading = read(write_padchest(tmp_path, studies, [row(name) for name in names], ["a.png", "d.png"]))
    assert rules(reading) == {
        "box that is no part of the image": ["entry 1, finding 1, boxes, box 1"],
        "box without area": ["entry 1, finding 2, boxes, box 1", "entry 1, finding 2, extra_boxes, box 1"],
        "sentence that says nothing": ["entry 1, finding 3", "entry 5, finding 1"],
        "sentence without a label (its text stays in the report)": ["entry 1, finding 4"],
        "box of what is denied": ["entry 1, finding 5, boxes, box 1"],
        "repeated image": ["a.png (entry 2)"],
        "malformed ImageID": ["../b.png (entry 3)"],
        "image without a split": ["c.png (entry 4)"],
        "no usable sentence": ["d.png (entry 5)"],
        "image missing or unreadable": ["gone.png (entry 6)"],
    }
    (box,) = only(reading).boxes
    assert (box.x + box.w, box.label) == (pytest.approx(80), "Pneumonia"), "a hand that slips is cut to the image"
    assert sum(reading.options["rows_removed"].values()) == 7


GOOD = study("a.png", said("Edema.", "pulmonary edema", boxes=[A]))


@pytest.mark.parametrize(
    ("studies", "words"),
    [
        ({"a": 1}, "no list of studies"),
        ([GOOD, "x"], "entry 2 is 'x'"),
        ([{"findings": []}], "entry 1, key 'ImageID' is not there"),
        ([GOOD, study("b.png") | {"findings": None}], "entry 2, key 'findings' is not there"),
        ([study("a.png", 7)], "entry 1, finding 1 is 7"),
        ([study("a.png", GOOD["findings"][0] | {"abnormal": "yes"})], "finding 1, key 'abnormal' is 'yes'"),
        ([study("a.png", said("x", boxes=[A, [1, 2, 3]]))], r"key 'boxes, box 2' is [1, 2, 3]"),
        ([study("a.png", said("x", extra=[[0, 0, float("nan"), 1]]))], "key 'extra_boxes, box 1' is [0, 0, nan, 1]"),
        ([study("a.png", said("x", boxes=[[0, 0, 10**400, 1]]))], "a number of 401 digits"),
        ([study("a.png", said("x") | {"boxes": {"x": 1}})], "key 'boxes' is {'x': 1}"),
        ([study("a.png", said("x") | {"labels": "edema"})], "key 'labels' is 'edema'"),
        ([study("a.png", said("x", boxes=[[8, 16, 40, 48]]))], "divide x by its width and y by its height"),
    ],
)
def test_a_report_of_another_form_is_refused_with_entry_and_key(tmp_path, studies, words):
    write_padchest(tmp_path, studies, [row("a.png"), row("b.png")])
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        read(tmp_path)
    said_once = str(caught.value)
    assert REPORTS in said_once
    assert said_once.count(". ") == 0, "one sentence"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("a.png"), row("a.png", "holdout")], "row 3, column 'split' is 'holdout'; it must be one of train, validation"),
        ([row("a.png"), row("a.png", "train")], "row 3 puts 'a.png' into another split or to another patient than row 2"),
        ([row("a.png", patient="1"), row("a.png", patient="2")], "row 3 puts 'a.png' into another split or to another"),
    ],
)  # fmt: skip
def test_a_table_that_contradicts_itself_is_refused_with_its_row(tmp_path, rows, words):
    write_padchest(tmp_path, [GOOD], rows)
    with pytest.raises(UserError, match=re.escape(f"master_table.csv, {words}")):
        read(tmp_path)


def test_what_is_missing_or_still_packed_is_named(tmp_path):
    write_padchest(tmp_path, [GOOD], [row("a.png")])
    shutil.rmtree(tmp_path / "Padchest_GR_files")
    with pytest.raises(UserError, match=r"no folder with images such as 'a\.png'"):
        read(tmp_path)
    (tmp_path / "Padchest_GR_files").mkdir()
    (tmp_path / "Padchest_GR_files/PadChest_GR.zip.001").touch()
    with pytest.raises(UserError, match=r"put its parts together in the order of their numbers \(cat\), unpack"):
        read(tmp_path)
    with pytest.raises(UserError, match="does not stay inside the root"):
        read(tmp_path, PadchestGrOptions(images="../elsewhere"))
    (tmp_path / REPORTS).write_text("[" * 300)
    with pytest.raises(UserError, match=f"{REPORTS} is not JSON that can be read to its end"):
        read(tmp_path)
    (tmp_path / REPORTS).rename(tmp_path / "grounded_reports_1.json")
    (tmp_path / "grounded_reports_2.json").write_text("[]")
    with pytest.raises(UserError, match="several files that would do"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"grounded_reports_2\.json holds no list of studies"):
        read(tmp_path, PadchestGrOptions(reports="grounded_reports_2.json"))
    for window in ((5.0,), (50.0, 50.0), (-1.0, 99.0), (0.0, 101.0)):
        with pytest.raises(UserError, match="two percentiles"):
            PadchestGrOptions(window=window)


def test_sixteen_bits_are_windowed_by_percentiles(tmp_path):
    ramp = np.linspace(10_000, 14_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    burnt = ramp.copy()
    burnt[0, :4], burnt[0, 4:8] = 65_535, 0
    paths = [tmp_path / "ramp.png", tmp_path / "burnt.png", tmp_path / "flat.png", tmp_path / "eight.png"]
    for path, values in zip(paths[:2], (ramp, burnt), strict=True):
        Image.fromarray(values).save(path)
    window = (0.5, 99.5)
    low, high = np.percentile(burnt, window)
    expected = np.rint(np.clip((burnt.astype(float) - low) / (high - low), 0, 1) * 255)
    np.testing.assert_allclose(read_image(paths[1], window), expected, atol=1)
    assert read_image(paths[1], window)[1:].std() > 70, "nearly the contrast of an even ramp, 73.6"
    assert read_image(paths[1])[1:].std() < 6, "the control: the whole range leaves a tenth of it"
    np.testing.assert_array_equal(read_image(paths[0], (0.0, 100.0)), read_image(paths[0]))
    flat = np.full((64, 64), 7, np.uint16)
    flat[0, 0] = 9
    Image.fromarray(flat).save(paths[2])
    assert set(np.unique(read_image(paths[2], window))) == {0, 255}, "percentiles that are one value: the whole range"
    eight = (ramp // 64).astype(np.uint8)
    Image.fromarray(eight).save(paths[3])
    np.testing.assert_array_equal(read_image(paths[3], window), eight)


def test_json_of_other_programs_is_read_too(tmp_path):
    """Keys in another order, more of them, and integers for corners."""
    text = json.dumps([study("a.png", said("Edema.", "Pulmonary  Edema", boxes=[[0, 0, 1, 1]]))], sort_keys=True)
    write_padchest(tmp_path, [], [row("a.png")])
    (tmp_path / REPORTS).write_text(text, encoding="utf-8")
    assert only(read(tmp_path)).boxes == (Box("Edema", 0, 0, 80, 64),)
