"""From records to shards: contents, what is left out, kill and continue, several processes, full disks."""

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.models.backbones import load_vae
from meddiff.preparation.encode import encode_images
from meddiff.preparation.prepare_cohort import Machine, dry_run, prepare_reading, read_cohort, shard_size
from meddiff.preparation.record_images import RecordImages
from meddiff.preparation.records import Funnel, Reading
from meddiff.shards import one_shard as shards_module
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.index import CACHE_NAME
from meddiff.shards.manifest import Manifest
from tests.builders.cohort_trees import make_folder, write_image, write_table

ROOT = Path(__file__).parents[2]
#: In this process, through Lightning; a pool has to start processes.
HERE = Machine(accelerator="cpu", devices=1)


def prepare(root: Path, out: Path, vae: Path, machine: Machine = HERE, limit: int | None = None) -> Manifest:
    reading = read_cohort("folder", root, limit=limit)
    manifest = prepare_reading(reading, out, str(vae), 64, machine, samples_per_shard=3, show_progress=False)
    assert manifest is not None
    return manifest


def contents(out: Path) -> dict[str, str]:
    """name -> sha256 of all files but the readers' cache."""
    files = (path for path in out.iterdir() if path.name != CACHE_NAME)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rejected(out: Path) -> list[list[str]]:
    with (out / "rejected.csv").open(newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("trees") / "plain")


@pytest.fixture(scope="module")
def whole(tree: Path, vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(tree, out, vae_folder)
    return out


def test_shards_hold_the_cropped_image_its_latent_boxes_and_masks(tree, whole, vae_folder):
    data = LatentShardsDataset(whole, "grounding")
    assert data.keys == [f"images-a{number:03d}" for number in range(12, 16)]
    sample = data[0]
    # 80 x 72 native: the square is x 4..76, scale 64 / 72
    scale = 64 / 72
    (box,) = sample["boxes"]
    expected = {"x": 26 * scale, "y": 20 * scale, "w": 20 * scale, "h": 20 * scale}
    assert box == {"label": "Edema"} | {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()}
    assert sample["phrases"] == [{"text": "fluid in the middle", "label": "Edema", "boxes": [box]}]
    assert (sample["width"], sample["height"], sample["patient_id"]) == (64, 64, "p12")
    assert sample["source"] == "images/a012.png"
    assert sample["attributes"]["native_size"] == [80, 72]
    image = data.image(0)
    square = Image.open(tree / "images/a012.png").resize((64, 64), Image.Resampling.BILINEAR, (4, 0, 76, 72))
    np.testing.assert_array_equal(image, np.asarray(square))
    assert abs(data.masks(0)["Edema"].sum() - (20 * scale) ** 2) < 40
    moments = encode_images(load_vae(str(vae_folder)), [image])[0]
    np.testing.assert_allclose(data.latent(0), moments, atol=2e-3, rtol=2e-3)


def test_manifest_funnel_and_files_beside_it(whole):
    manifest = Manifest.read(whole)
    assert manifest.cohort == "folder"
    assert {split: count["samples"] for split, count in manifest.counts.items()} == {
        "grounding": 4,
        "train": 9,
        "val": 3,
    }
    assert manifest.counts["grounding"]["boxes"] == {"kept": 4}
    assert manifest.funnel[0] == ("read", 16, 0)
    assert manifest.funnel[-2:] == (("unreadable image", 16, 0), ("written", 16, 0))
    assert "centre crop" in manifest.resize
    assert rejected(whole) == [["item", "rule", "detail"]]
    assert Image.open(whole / "preview.png").width > 1000
    assert not (whole / ".partial").exists()


def test_pool_and_lightning_with_one_and_two_processes_give_the_same_bytes(tree, whole, vae_folder, tmp_path):
    prepare(tree, tmp_path / "pool", vae_folder, Machine(accelerator="cpu", processes=2))
    assert contents(tmp_path / "pool") == contents(whole)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.preparation.test_prepare_records import Machine, prepare_reading, read_cohort\n"
        "reading = read_cohort('folder', sys.argv[1])\n"
        "done = prepare_reading(reading, sys.argv[2], sys.argv[3], 64, Machine('cpu', devices=2), samples_per_shard=3)\n"
        "Path(sys.argv[4], 'rank 0' if done else 'rank 1').touch()\n"
    )
    run = subprocess.run(
        [sys.executable, str(script), str(tree), str(tmp_path / "ranks"), str(vae_folder), str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "rank 0").exists()
    assert (tmp_path / "rank 1").exists()
    assert contents(tmp_path / "ranks") == contents(whole)


def test_killed_at_any_point_and_started_again_gives_the_same_bytes(tree, whole, vae_folder, tmp_path):
    program = (
        "import sys, time\n"
        "from tests.preparation import test_prepare_records as t\n"
        "from meddiff.preparation.record_images import RecordImages\n"
        "plain = RecordImages.__call__\n"
        "def slow(self, record):\n    time.sleep(0.05); return plain(self, record)\n"
        "RecordImages.__call__ = slow\n"
        "t.prepare(t.Path(sys.argv[1]), t.Path(sys.argv[2]), sys.argv[3])\n"
    )
    out, killed = tmp_path / "out", []
    for wanted in (0, 2, 4):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tree), str(out), str(vae_folder)],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < end:
            begun = (out / ".partial").is_dir()
            if begun and len(list(out.glob("*.tar"))) >= wanted:
                break
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        killed.append(len(list(out.glob("*.tar"))))
        assert not (out / "manifest.json").exists()
    assert killed[-1] >= 4
    noted = {path.name.removesuffix(".json") for path in (out / ".partial").glob("*.tar.json")}
    finished = {name: (out / name).stat().st_mtime_ns for name in noted}
    assert finished
    prepare(tree, out, vae_folder)
    assert contents(out) == contents(whole)
    # what was finished before the kill was not written again
    assert {name: (out / name).stat().st_mtime_ns for name in noted} == finished


def test_unreadable_images_are_left_out_listed_counted_and_tried_again(vae_folder, tmp_path, whole, tree):
    root = make_folder(tmp_path / "tree")
    good = (root / "images/a001.png").read_bytes()
    (root / "images/a001.png").write_bytes(good[: len(good) // 2])
    (root / "images/a013_mask.png").unlink()
    (root / "images/a002.png").unlink()
    one = tmp_path / "one"
    manifest = prepare(root, one, vae_folder)
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
    prepare(root.rename(tmp_path / "moved"), tmp_path / "two", vae_folder)
    assert contents(tmp_path / "two") == contents(one)
    # mended and run again: only what was incomplete is written, and the folder is as if nothing had been wrong
    before = (one / "train-00002.tar").stat().st_mtime_ns
    for name in ("a001.png", "a002.png", "a013_mask.png"):
        (tmp_path / "moved/images" / name).write_bytes((tree / "images" / name).read_bytes())
    prepare(tmp_path / "moved", one, vae_folder)
    assert contents(one) == contents(whole)
    assert (one / "train-00002.tar").stat().st_mtime_ns == before


def test_a_shard_whose_images_are_all_unreadable_does_not_stop_the_others(vae_folder, tmp_path):
    root = make_folder(tmp_path / "tree")
    for number in (0, 1, 2):  # the first shard of train
        (root / f"images/a{number:03d}.png").write_text("nothing")
    manifest = prepare(root, tmp_path / "out", vae_folder)
    assert [shard.samples for shard in manifest.split("train")] == [0, 3, 3]
    assert len(LatentShardsDataset(tmp_path / "out", "train")) == 6


def test_no_readable_image_at_all_is_an_error(vae_folder, tmp_path):
    root = make_folder(tmp_path / "tree", train=3, boxed=0)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"none of the 3 images .* can be read \(images/a000.png: no such file\)"):
        prepare(root, tmp_path / "out", vae_folder)


def test_a_full_disk_is_one_sentence_and_finished_shards_stay(tree, whole, vae_folder, tmp_path, monkeypatch):
    plain, written, out = shards_module._Digest.write, [0], tmp_path / "out"

    def full(self: Any, data: bytes) -> int:
        written[0] += len(data)
        if written[0] > 80_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(shards_module._Digest, "write", full)
    with pytest.raises(UserError, match=r"cannot write .*tar \(No space left on device\): the shards finished so far"):
        prepare(tree, out, vae_folder)
    finished = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")}
    assert 0 < len(finished) < 6
    assert not list(out.glob(".*.tar.*"))
    assert finished.items() <= contents(whole).items()
    monkeypatch.undo()
    prepare(tree, out, vae_folder)
    assert contents(out) == contents(whole)


def test_an_output_that_cannot_be_made_is_one_sentence(tree, vae_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        prepare(tree, tmp_path / "file" / "out", vae_folder)


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
    manifest = prepare(tmp_path, tmp_path / "out", vae_folder)
    assert manifest.counts["grounding"]["boxes"] == {"kept": 2, "cut": 1, "lost": 1}
    sample = LatentShardsDataset(tmp_path / "out", "grounding").metadata(0)
    assert (sample["attributes"]["boxes_lost"], sample["attributes"]["boxes_cut"]) == (1, 1)
    assert [len(phrase["boxes"]) for phrase in sample["phrases"]] == [0, 1, 1]


def test_limit_takes_the_first_of_each_split_and_says_so(tree, vae_folder, tmp_path):
    manifest = prepare(tree, tmp_path / "out", vae_folder, limit=2)
    assert {split: count["samples"] for split, count in manifest.counts.items()} == {
        "grounding": 2,
        "train": 2,
        "val": 2,
    }
    assert ("beyond --limit 2", 6, 10) in manifest.funnel
    assert len(rejected(tmp_path / "out")) == 11
    with pytest.raises(UserError, match="another options"):
        prepare(tree, tmp_path / "out", vae_folder)
    with pytest.raises(UserError, match="limit is 0"):
        read_cohort("folder", tree, limit=0)


def test_dry_run_prints_the_funnel_and_writes_nothing(tmp_path, capsys):
    root = make_folder(tmp_path / "tree")
    (root / "images/a000.png").unlink()
    before = sorted(tmp_path.rglob("*"))
    dry_run(read_cohort("folder", root))
    assert sorted(tmp_path.rglob("*")) == before
    printed = capsys.readouterr().out
    assert "images/a000.png: no such file" in printed
    assert "grounding 4  train 8  val 3" in printed


def test_a_key_twice_and_a_patient_in_two_splits_are_refused(tree, monkeypatch):
    first = read_cohort("folder", tree).records[0]
    pairs = ((first, "occurs twice"), (replace(first, key="other", split="val"), "in two splits, train .* and val"))
    for other, words in pairs:
        broken = Reading("folder", tree, [first, other], Funnel(), [], {})
        monkeypatch.setattr(
            "meddiff.preparation.prepare_cohort.reader", lambda _, broken=broken: (lambda *_: broken, dict)
        )
        with pytest.raises(UserError, match=words):
            read_cohort("folder", tree)


def test_a_link_out_of_the_root_is_refused(vae_folder, tmp_path):
    root = make_folder(tmp_path / "tree", train=3, boxed=0)
    secret = write_image(tmp_path / "secret.png", "secret")
    (root / "images/a001.png").unlink()
    (root / "images/a001.png").symlink_to(secret)
    with pytest.raises(UserError, match="leads out of the root"):
        prepare(root, tmp_path / "out", vae_folder)


def test_a_mask_that_is_such_a_link_is_refused_before_any_image_is_read(vae_folder, tmp_path, monkeypatch):
    root = make_folder(tmp_path / "tree", train=3, boxed=1)
    mask = root / "images/a003_mask.png"
    mask.rename(tmp_path / "mask.png")
    mask.symlink_to(tmp_path / "mask.png")
    read: list[str] = []
    monkeypatch.setattr(RecordImages, "__call__", lambda self, record: read.append(record.key))
    with pytest.raises(UserError, match="leads out of the root"):
        prepare(root, tmp_path / "out", vae_folder)
    assert not read


def test_shards_of_a_cohort_are_sized_by_it_alone():
    assert [shard_size(n) for n in (3, 165, 640, 4096, 200_000)] == [16, 16, 40, 256, 256]


def test_manifests_of_before_are_read(whole, tmp_path):
    values = json.loads((whole / "manifest.json").read_text())
    del values["funnel"]
    for shard in values["shards"]:
        del shard["unreadable"], shard["boxes"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    manifest = Manifest.read(tmp_path)
    assert manifest.funnel == ()
    assert manifest.shards[0].unreadable == {}
