"""MS-COCO: masks against brute force, and the reader on a small tree with the official names and fields."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.preparation.coco_masks import decode_counts, polygon_mask, rle_mask, segmentation_mask
from meddiff.preparation.cohorts.mscoco import MscocoOptions, published_val, read
from meddiff.shards.sample import Box, Phrase
from tests.builders.readings import SHARED, rules

MINI = SHARED / "coco_mini"
HEIGHT, WIDTH = 12, 20


# --- masks -----------------------------------------------------------------------------------------------------------


def inside_polygon(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Even-odd rule, one ray to the left."""
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


def brute_polygon(points: list[float], height: int, width: int) -> np.ndarray:
    corners = list(zip(points[::2], points[1::2], strict=True))
    rows = [[inside_polygon(x + 0.5, y + 0.5, corners) for x in range(width)] for y in range(height)]
    return np.array(rows).reshape(height, width)


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, background first, counted pixel by pixel."""
    runs, current = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if bool(mask[y, x]) != current:
                runs.append(0)
                current = not current
            runs[-1] += 1
    return runs


def compressed(runs: list[int]) -> str:
    """The text form: differences from the fourth on, five bits a character, sixth bit for more."""
    out = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            out += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return out


@pytest.mark.parametrize("seed", range(40))
def test_polygons_are_filled_as_by_hand_also_where_they_cross_themselves_or_leave_the_image(seed):
    draw = generator("coco polygon", seed)
    height, width, corners = (int(draw.integers(low, high)) for low, high in ((1, 30), (1, 30), (3, 12)))
    points = draw.uniform(-8, 36, 2 * corners)
    # whole and half numbers put corners and edges onto pixel centres
    points = (points if seed % 2 else np.round(points * 2) / 2).tolist()
    np.testing.assert_array_equal(polygon_mask(points, height, width), brute_polygon(points, height, width))


def test_two_polygons_that_share_an_edge_cover_each_pixel_once():
    left, right = [0.5, 0.5, 9.5, 0.5, 4.5, 9.5, 0.5, 9.5], [9.5, 0.5, 12.5, 0.5, 12.5, 9.5, 4.5, 9.5]
    whole = polygon_mask([0.5, 0.5, 12.5, 0.5, 12.5, 9.5, 0.5, 9.5], 12, 14)
    parts = [polygon_mask(points, 12, 14).astype(int) for points in (left, right)]
    np.testing.assert_array_equal(parts[0] + parts[1], whole.astype(int))


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_come_back_from_both_forms(seed):
    draw = generator("coco runs", seed)
    height, width = int(draw.integers(1, 40)), int(draw.integers(1, 40))
    mask = draw.random((height, width)) < draw.random()
    if seed % 3 == 0:  # long runs, whose numbers need several characters
        height, width = 90, 70
        mask = np.zeros((height, width), bool)
        mask[:, int(draw.integers(0, 30)) : int(draw.integers(31, 70))] = True
    runs = runs_of(mask)
    assert decode_counts(compressed(runs)) == runs
    for counts in (runs, compressed(runs)):
        np.testing.assert_array_equal(
            segmentation_mask({"size": [height, width], "counts": counts}, height, width), mask
        )


def test_an_instance_is_the_union_of_its_polygons():
    parts = [[1, 1, 6, 1, 6, 6, 1, 6], [4, 4, 9, 4, 9, 9, 4, 9]]
    expected = brute_polygon(parts[0], HEIGHT, WIDTH) | brute_polygon(parts[1], HEIGHT, WIDTH)
    np.testing.assert_array_equal(segmentation_mask(parts, HEIGHT, WIDTH), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        None, [], [1, 2, 3], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, float("nan")]], [[1, 2, 3, 4, 5, 10**400]], {}, {"counts": [240]},
        {"size": [HEIGHT, WIDTH], "counts": [239]}, {"size": [HEIGHT, WIDTH], "counts": [-1, 241]},
        {"size": [HEIGHT, WIDTH], "counts": [10**12]}, {"size": [WIDTH, HEIGHT], "counts": [240]},
        {"size": [HEIGHT, WIDTH], "counts": "`"}, {"size": [HEIGHT, WIDTH], "counts": "\x01"},
        {"size": [HEIGHT, WIDTH], "counts": [240.0]},
    ],
)  # fmt: skip
def test_damaged_segmentations_are_refused(segmentation):
    with pytest.raises(UserError):
        segmentation_mask(segmentation, HEIGHT, WIDTH)


def test_masks_agree_with_the_official_code_where_it_is_installed():
    official = pytest.importorskip("pycocotools.mask", reason="pycocotools is a test reference only")
    draw = generator("coco official")
    for _ in range(20):
        angles = np.sort(draw.uniform(0, 2 * np.pi, 9))
        radii = draw.uniform(8, 28, 9)
        points = np.stack([32 + radii * np.cos(angles), 32 + radii * np.sin(angles)], 1).reshape(-1).tolist()
        theirs = official.decode(official.frPyObjects([points], 64, 64))[:, :, 0] > 0
        assert (theirs != polygon_mask(points, 64, 64)).mean() < 0.01
        text = official.encode(np.asfortranarray(theirs.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(rle_mask(text, 64, 64), theirs)


# --- reader ----------------------------------------------------------------------------------------------------------

CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 17, "name": "cat"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
    {"supercategory": "other", "id": 99, "name": "unicorn"},
]
SQUARE = [[2, 2, 8, 2, 8, 7, 2, 7]]


def image(number: int, **changes) -> dict:
    name = f"{number:012d}.jpg"
    return {"license": 4, "file_name": name, "coco_url": f"http://images.cocodataset.org/x/{name}", "height": HEIGHT,
            "width": WIDTH, "date_captured": "2013-11-14 17:02:52", "flickr_url": "", "id": number} | changes  # fmt: skip


def instance(number: int, image_id: int, category: object, **changes) -> dict:
    return {"segmentation": SQUARE, "area": 30.0, "iscrowd": 0, "image_id": image_id, "bbox": [2, 2, 6, 5],
            "category_id": category, "id": number} | changes  # fmt: skip


def caption(number: int, image_id: int, text: str) -> dict:
    return {"image_id": image_id, "id": number, "caption": text}


def write(
    root: Path, subset: str, images: list, captions: list, instances: list, categories: list = CATEGORIES
) -> None:
    head = {"info": {"year": 2017}, "licenses": [{"id": 4}], "images": images}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / subset).mkdir(exist_ok=True)
    for kind, annotations in (("captions", captions), ("instances", instances)):
        value = head | {"annotations": annotations} | ({"categories": categories} if kind == "instances" else {})
        (root / "annotations" / f"{kind}_{subset}.json").write_text(json.dumps(value))


def val_tree(root: Path) -> Path:
    """val2017 alone, with everything that may be wrong in it."""
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[3:6, 10:19] = True
    runs = {"size": [HEIGHT, WIDTH], "counts": runs_of(crowd)}
    write(
        root,
        "val2017",
        [
            image(139), image(285), image(632), image(724), image(785), image(139), image(802, file_name="../802.jpg"),
            image(872, file_name="/etc/872.jpg"), image(885, width=0), {"id": "x"}, image(1000),
        ],
        [
            caption(1, 139, "A cat sits  beside\na dog."), caption(2, 139, "  "), caption(3, 139, "Two dogs."),
            caption(4, 285, "A bear is located in grass."), caption(5, 632, "It is tied to nothing."),
            caption(6, 785, ""), caption(7, 424242, "A cat."), caption(3, 139, "A repeated id."), caption(8, 802, "A cat."),
            caption(9, 1000, "A small cat."), {"image_id": 139, "id": 10}, {"id": None},
        ],
        [
            instance(11, 139, 17), instance(12, 139, 18, segmentation=runs, iscrowd=1, bbox=[10, 3, 9, 3]),
            instance(13, 139, 18, segmentation=[[12, 8, 16, 8, 16, 11, 12, 11]], bbox=[12, 8, 4, 3]),
            instance(14, 139, 17, bbox=[4, 4, 0, 3]), instance(15, 139, 99), instance(16, 139, 77), instance(22, 139, [1]),
            instance(17, 139, 1, segmentation=[[1, 2]]), instance(18, 139, 1, bbox=[20, 2, 3, 3]),
            instance(19, 5, 1), instance(13, 139, 1), instance(20, 1000, 1), instance(21, 139, 1, bbox=[1, 2, 3]),
        ],
    )  # fmt: skip
    return root


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


def train_tree(root: Path, n: int, order: int = 1) -> Path:
    """val2017 and n images of train2017, every tenth of which names no class."""
    numbers = list(range(2000, 2000 + n))[::order]
    texts = {number: "Nothing here." if number % 10 == 0 else "A dog." for number in numbers}
    captions = [caption(number, number, text) for number, text in texts.items()]
    instances = [instance(number, number, 18, segmentation="not looked at") for number in numbers]
    write(val_tree(root), "train2017", [image(number) for number in numbers], captions, instances)
    return root


def test_train_and_val_come_out_of_train2017_and_grounding_out_of_val2017(tmp_path):
    reading = read(train_tree(tmp_path, 400))
    splits = {record.key: record.split for record in reading.records}
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
    splits = {record.key: record.split for record in many.records}
    assert all(splits[record.key] == record.split for record in few.records)
    other = read(tmp_path / "b", MscocoOptions(seed=1))
    assert {record.key: record.split for record in other.records} != splits


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
    (val_tree(tmp_path) / "annotations" / "captions_val2017.json").write_text(content)
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
