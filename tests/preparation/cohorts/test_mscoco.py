"""MS-COCO on a small tree with the official names and fields, and on real images of ../shared."""

import pickle

import numpy as np
import pytest

from meddiff.common.errors import UserError
from meddiff.preparation.cohorts.mscoco import MscocoOptions, published_val, read
from meddiff.shards.sample import Box, Phrase
from tests.builders.brute_polygon import brute_polygon
from tests.builders.mscoco_tree import HEIGHT, SQUARE, WIDTH, train_tree, val_tree
from tests.builders.readings import SHARED, rules, split_of

MINI = SHARED / "coco_mini"

ONLY_VAL = MscocoOptions(subsets=("val2017",))


def test_every_caption_box_and_phrase_of_an_image_is_there(tmp_path):
    records = {record.key: record for record in read(val_tree(tmp_path), ONLY_VAL).records}
    assert sorted(records) == ["000000000139", "000000000285", "000000001000"]
    one = records["000000000139"]
    cat, crowd, dog = Box("cat", 2, 2, 6, 5), Box("dog", 10, 3, 9, 3), Box("dog", 12, 8, 4, 3)
    assert (one.path, one.split, one.patient_id) == ("val2017/000000000139.jpg", "grounding", "000000000139")
    assert one.captions == ("A cat sits beside a dog.", "Two dogs.")
    assert one.impression == "A cat sits beside a dog."
    assert (one.labels, one.boxes) == (("cat", "dog"), (cat, crowd, dog))
    assert one.phrases == (
        Phrase("A cat sits beside a dog.", "cat", (cat,)),
        Phrase("A cat sits beside a dog.", "dog", (crowd, dog)),
        Phrase("Two dogs.", "dog", (crowd, dog)),
    )
    assert records["000000000285"].labels == ()  # no instance, and none is made up
    assert records["000000001000"].phrases == ()  # the caption's cat is not among the instances


def test_everything_that_is_left_out_has_its_reason(tmp_path):
    reading = read(val_tree(tmp_path), ONLY_VAL)
    assert rules(reading) == {
        "malformed annotation": ["val2017 caption None"],
        "repeated annotation": ["val2017 caption 3", "val2017 instance 13"],
        "annotation of an image that is not listed": [
            "val2017 caption 7", "val2017 caption 8", "val2017 instance 19",
        ],
        "caption without text": ["val2017 caption 2", "val2017 caption 6", "val2017 caption 10"],
        "instance of an unknown class": ["val2017 instance 15", "val2017 instance 16", "val2017 instance 22"],
        "box without area or outside the image": [
            "val2017 instance 14", "val2017 instance 18", "val2017 instance 21",
        ],
        "damaged segmentation": ["val2017 instance 17"],
        "malformed image entry": [
            "val2017/../802.jpg", "val2017//etc/872.jpg", "val2017/000000000885.jpg", "val2017/None",
        ],
        "repeated image": ["val2017/000000000139.jpg"],
        "no caption": ["val2017/000000000724.jpg", "val2017/000000000785.jpg"],
        "no caption names a class": ["val2017/000000000632.jpg"],
    }  # fmt: skip
    assert [left for _, left, _ in reading.funnel.rows()] == [11, 7, 6, 4, 3]
    assert len(reading.records) == 3
    assert reading.options["annotations_removed"]["box without area or outside the image"] == 3


def test_the_papers_words_are_substrings(tmp_path):
    paper = read(val_tree(tmp_path), MscocoOptions(subsets=("val2017",), preset="paper"))
    assert "000000000632" in {record.key for record in paper.records}  # "tied" holds a tie
    assert "no caption names a class" not in rules(paper)


def test_masks_are_unions_of_instances_and_survive_pickling(tmp_path):
    reading = read(val_tree(tmp_path), ONLY_VAL)
    record = next(record for record in reading.records if record.key.endswith("139"))
    masks = pickle.loads(pickle.dumps(reading.native_masks))(record, (HEIGHT, WIDTH))
    dog = brute_polygon([12, 8, 16, 8, 16, 11, 12, 11], HEIGHT, WIDTH)
    dog[3:6, 10:19] = True
    assert sorted(masks) == ["cat", "dog"]
    np.testing.assert_array_equal(masks["dog"], dog)
    np.testing.assert_array_equal(masks["cat"], brute_polygon(SQUARE[0], HEIGHT, WIDTH))
    with pytest.raises(UserError, match=r"has 21 x 12 pixels, .* says 20 x 12"):
        reading.native_masks(record, (HEIGHT, WIDTH + 1))


def test_crowd_regions_can_be_left_out(tmp_path):
    reading = read(val_tree(tmp_path), MscocoOptions(subsets=("val2017",), crowd=False))
    record = next(record for record in reading.records if record.key.endswith("139"))
    assert record.boxes == (Box("cat", 2, 2, 6, 5), Box("dog", 12, 8, 4, 3))
    assert reading.native_masks(record, (HEIGHT, WIDTH))["dog"].sum() == 12
    assert rules(reading)["crowd region"] == ["val2017 instance 12"]


def test_train_and_val_come_out_of_train2017_and_grounding_out_of_val2017(tmp_path):
    reading = read(train_tree(tmp_path, 400))
    splits = split_of(reading)
    assert len(splits) == len(reading.records) == 363
    assert {split for key, split in splits.items() if int(key) >= 2000} == {"train", "val"}
    assert {split for key, split in splits.items() if int(key) < 2000} == {"grounding"}
    assert 20 <= reading.options["counts"]["val"] <= 55  # 36 expected, standard deviation 5.7
    train = next(record for record in reading.records if record.split == "train")
    assert (train.phrases, train.labels, train.boxes) == ((), ("dog",), (Box("dog", 2, 2, 6, 5),))
    assert reading.native_masks(train, (HEIGHT, WIDTH)) == {}
    assert [record.key for record in reading.records] == sorted(splits)


def test_an_addressed_split_does_not_hang_on_the_other_images_or_their_order(tmp_path):
    few, many = read(train_tree(tmp_path / "a", 100)), read(train_tree(tmp_path / "b", 200, order=-1))
    splits = split_of(many)
    assert all(splits[record.key] == record.split for record in few.records)
    other = read(tmp_path / "b", MscocoOptions(seed=1))
    assert split_of(other) != splits


def test_the_published_split_is_one_stream_over_the_rows_left_in_the_order_of_the_file(tmp_path):
    records = read(train_tree(tmp_path, 20), MscocoOptions(val="published")).records
    # seed 42: .37 .95 .73 .60 .16 .16 .06 .87 .60 .71 .02 .97 .83 .21 .18 .18 .30 .52; rows 2000 and 2010 are not left
    assert [record.key for record in records if record.split == "val"] == ["000000002002", "000000002013"]


def test_the_published_split_gives_the_papers_counts():
    # 98,169 and 10,702 images of the paper: the split was drawn after the captions were filtered
    assert sum(published_val(98_169 + 10_702)) == 10_702


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("annotations/captions_val2017.json", "captions_val2017.json"),
        ("annotations/instances_train2017.json", "instances_train2017.json"),
        ("train2017", "no folder train2017"),
    ],
)
def test_a_missing_part_is_named_with_where_it_comes_from(tmp_path, gone, said):
    path = train_tree(tmp_path, 10) / gone
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{said}.*cocodataset\.org"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"images": 3}', '{"images": [], "annotations": {}}'])
def test_a_damaged_json_is_refused_with_its_name(tmp_path, content):
    (val_tree(tmp_path) / "annotations" / "captions_val2017.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"captions_val2017\.json"):
        read(tmp_path, ONLY_VAL)


@pytest.mark.parametrize("options", [{"val_fraction": 1.0}, {"subsets": ("test2017",)}, {"subsets": ()}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="mscoco"):
        MscocoOptions(**options)


def test_real_images_in_the_official_format_are_read():
    if not MINI.is_dir():
        pytest.skip(f"{MINI} is not there")
    reading = read(MINI)
    assert (len(reading.records), len(reading.rejected)) == (28, 1)  # one caption set names street signs only
    assert all(len(record.captions) == 5 for record in reading.records)
    grounded = [record for record in reading.records if record.split == "grounding"]
    assert len(grounded) == 17
    assert {record.split for record in reading.records} <= {"train", "val", "grounding"}
    for record in grounded:
        width, height = record.attributes["native_size"]
        masks = reading.native_masks(record, (height, width))
        assert set(masks) == set(record.labels)
        for label, mask in masks.items():
            rows, columns = np.nonzero(mask)
            boxes = [box for box in record.boxes if box.label == label]
            # The annotators' boxes hold the outlines; a thin tip of an outline covers no pixel centre.
            inset = (
                columns.min() - min(box.x for box in boxes),
                rows.min() - min(box.y for box in boxes),
                max(box.x + box.w for box in boxes) - columns.max() - 1,
                max(box.y + box.h for box in boxes) - rows.max() - 1,
            )
            assert min(inset) >= -1, (record.key, label, inset)
            assert max(inset) <= 3, (record.key, label, inset)
