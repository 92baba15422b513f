"""Images of records on their way into shards: unreadable ones, boxes the crop takes, links that lead out."""

import json
from dataclasses import replace

import pytest

from meddiff.common.errors import UserError
from meddiff.preparation.prepare_cohort import prepare_reading, read_cohort
from meddiff.preparation.record_images import RecordImages
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.files import listing, write_image, write_table
from tests.builders.folder_tree import make_folder
from tests.builders.prepared_folder import HERE, prepare_folder, rejected


def test_unreadable_images_are_left_out_listed_counted_and_tried_again(vae_folder, tmp_path, whole, tree):
    root = make_folder(tmp_path / "tree")
    good = (root / "images/a001.png").read_bytes()
    (root / "images/a001.png").write_bytes(good[: len(good) // 2])
    (root / "images/a013_mask.png").unlink()
    (root / "images/a002.png").unlink()
    one = tmp_path / "one"
    manifest = prepare_folder(root, one, vae_folder)
    assert manifest.funnel[-2:] == (("unreadable image", 13, 3), ("written", 13, 0))
    assert manifest.counts["train"] == {"samples": 7, "labels": {"Edema": 7, "Pneumonia": 2}, "unreadable": 2}
    lines = rejected(one)[1:]
    names = [f"images/a{number:03d}.png" for number in (1, 2, 13)]
    assert [line[:2] for line in sorted(lines)] == [[name, "unreadable image"] for name in names]
    reasons = {line[0]: line[2] for line in lines}
    assert reasons[names[1]] == "no such file"
    assert reasons[names[2]] == "mask images/a013_mask.png: no such file"
    assert "images-a001" not in LatentShardsDataset(one, "train").keys
    # from another place: the same bytes
    prepare_folder(root.rename(tmp_path / "moved"), tmp_path / "two", vae_folder)
    assert listing(tmp_path / "two") == listing(one)
    # mended and run again: only what was incomplete is written, and the folder is as if nothing had been wrong
    before = (one / "train-00002.tar").stat().st_mtime_ns
    for name in ("a001.png", "a002.png", "a013_mask.png"):
        (tmp_path / "moved/images" / name).write_bytes((tree / "images" / name).read_bytes())
    prepare_folder(tmp_path / "moved", one, vae_folder)
    assert listing(one) == listing(whole)
    assert (one / "train-00002.tar").stat().st_mtime_ns == before


def test_a_shard_whose_images_are_all_unreadable_does_not_stop_the_others(vae_folder, tmp_path):
    root = make_folder(tmp_path / "tree")
    for number in (0, 1, 2):  # the first shard of train
        (root / f"images/a{number:03d}.png").write_text("nothing", encoding="utf-8")
    manifest = prepare_folder(root, tmp_path / "out", vae_folder)
    assert [shard.samples for shard in manifest.split("train")] == [0, 3, 3]
    assert len(LatentShardsDataset(tmp_path / "out", "train")) == 6


def test_no_readable_image_at_all_is_an_error(vae_folder, tmp_path):
    root = make_folder(tmp_path / "tree", train=3, boxed=0)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"none of the 3 images .* can be read \(images/a000.png: no such file\)"):
        prepare_folder(root, tmp_path / "out", vae_folder)


def test_an_image_of_another_size_than_its_boxes_is_left_out(vae_folder, tmp_path):
    reading = read_cohort("folder", make_folder(tmp_path / "tree", train=4, boxed=2))
    place = next(place for place, one in enumerate(reading.records) if one.boxes)
    reading.records[place] = replace(reading.records[place], attributes={"native_size": [1024, 1024]})
    manifest = prepare_reading(reading, tmp_path / "out", str(vae_folder), 64, HERE, show_progress=False)
    assert manifest is not None
    assert manifest.counts["grounding"]["samples"] == 1
    assert "drawn for 1024 x 1024" in rejected(tmp_path / "out")[1][2]


def test_boxes_that_the_crop_takes_are_counted_and_their_phrases_stay(vae_folder, tmp_path):
    write_image(tmp_path / "a.png", "wide", size=(200, 80))
    boxes = [
        {"x": x, "y": 0, "w": 20, "h": 20, "label": "Edema", "phrase": phrase}
        for x, phrase in ((0, "far left"), (55, "left"), (90, "middle"))
    ]
    row = {"image": "a.png", "labels": "Edema", "split": "grounding", "boxes": json.dumps(boxes)}
    write_table(tmp_path / "meta.csv", tuple(row), [row])
    manifest = prepare_folder(tmp_path, tmp_path / "out", vae_folder)
    assert manifest.counts["grounding"]["boxes"] == {"kept": 2, "cut": 1, "lost": 1}
    sample = LatentShardsDataset(tmp_path / "out", "grounding").metadata(0)
    assert (sample["attributes"]["boxes_lost"], sample["attributes"]["boxes_cut"]) == (1, 1)
    assert [len(phrase["boxes"]) for phrase in sample["phrases"]] == [0, 1, 1]


def test_a_link_out_of_the_root_is_refused(vae_folder, tmp_path):
    root = make_folder(tmp_path / "tree", train=3, boxed=0)
    secret = write_image(tmp_path / "secret.png", "secret")
    (root / "images/a001.png").unlink()
    (root / "images/a001.png").symlink_to(secret)
    with pytest.raises(UserError, match="leads out of the root"):
        prepare_folder(root, tmp_path / "out", vae_folder)


def test_a_mask_that_is_such_a_link_is_refused_before_any_image_is_read(vae_folder, tmp_path, monkeypatch):
    root = make_folder(tmp_path / "tree", train=3, boxed=1)
    mask = root / "images/a003_mask.png"
    mask.rename(tmp_path / "mask.png")
    mask.symlink_to(tmp_path / "mask.png")
    read: list[str] = []
    monkeypatch.setattr(RecordImages, "__call__", lambda self, record: read.append(record.key))
    with pytest.raises(UserError, match="leads out of the root"):
        prepare_folder(root, tmp_path / "out", vae_folder)
    assert not read
