"""From records to shards: contents, kill and continue, several processes, full disks, limits."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from meddiff.common.errors import UserError
from meddiff.models.backbones import load_vae
from meddiff.preparation.encode import encode_images
from meddiff.preparation.prepare_cohort import Machine, dry_run, read_cohort, shard_size
from meddiff.preparation.records import Funnel, Reading
from meddiff.shards import one_shard
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from tests.builders.children import environment
from tests.builders.files import listing
from tests.builders.folder_tree import make_folder
from tests.builders.prepared_folder import prepare_folder, rejected


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
    np.testing.assert_array_equal(image, np.asarray(square))  # the same filter of Pillow, on bytes
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


@pytest.mark.slow  # prepare_phantom has the same of a smaller cohort
def test_pool_and_lightning_with_one_and_two_processes_give_the_same_bytes(tree, whole, vae_folder, tmp_path):
    prepare_folder(tree, tmp_path / "pool", vae_folder, Machine(accelerator="cpu", processes=2))
    assert listing(tmp_path / "pool") == listing(whole)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from meddiff.preparation.prepare_cohort import Machine, prepare_reading, read_cohort\n"
        "reading = read_cohort('folder', sys.argv[1])\n"
        "done = prepare_reading(reading, sys.argv[2], sys.argv[3], 64, Machine('cpu', devices=2), samples_per_shard=3)\n"
        "Path(sys.argv[4], 'rank 0' if done else 'rank 1').touch()\n",
        encoding="utf-8",
    )
    run = subprocess.run(
        [sys.executable, str(script), str(tree), str(tmp_path / "ranks"), str(vae_folder), str(tmp_path)],
        cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "rank 0").exists()
    assert (tmp_path / "rank 1").exists()
    assert listing(tmp_path / "ranks") == listing(whole)


#: Prepares a cohort until as many shards are there as asked for; the next image then takes longer than the test waits,
#: so that a machine too busy to kill at once does not find a finished folder.
SLOW = """
import sys, time
from pathlib import Path
from meddiff.preparation.record_images import RecordImages
from tests.builders.prepared_folder import prepare_folder
root, out, vae, wanted = sys.argv[1:]
plain = RecordImages.__call__
def slow(self, record):
    time.sleep(600 if len(list(Path(out).glob("*.tar"))) >= int(wanted) else 0.05)
    return plain(self, record)
RecordImages.__call__ = slow
prepare_folder(Path(root), Path(out), Path(vae))
"""


def test_killed_at_any_point_and_started_again_gives_the_same_bytes(tree, whole, vae_folder, tmp_path):
    out, killed = tmp_path / "out", []
    for wanted in (0, 4):
        child = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(tree), str(out), str(vae_folder), str(wanted)],
            cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 250
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
    prepare_folder(tree, out, vae_folder)
    assert listing(out) == listing(whole)
    # what was finished before the kill was not written again
    assert {name: (out / name).stat().st_mtime_ns for name in noted} == finished


def test_a_full_disk_is_one_sentence_and_finished_shards_stay(tree, whole, vae_folder, tmp_path, monkeypatch):
    plain, written, out = one_shard.HashingStream.write, [0], tmp_path / "out"

    def full(self: object, data: bytes) -> int:
        written[0] += len(data)
        if written[0] > 80_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(one_shard.HashingStream, "write", full)
    with pytest.raises(UserError, match=r"cannot write .*tar \(No space left on device\): the shards finished so far"):
        prepare_folder(tree, out, vae_folder)
    finished = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")}
    assert 0 < len(finished) < 6
    assert not list(out.glob(".*.tar.*"))
    assert finished.items() <= listing(whole).items()
    monkeypatch.undo()
    prepare_folder(tree, out, vae_folder)
    assert listing(out) == listing(whole)


def test_an_output_that_cannot_be_made_is_one_sentence(tree, vae_folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        prepare_folder(tree, tmp_path / "file" / "out", vae_folder)


def test_limit_takes_the_first_of_each_split_and_says_so(tree, vae_folder, tmp_path):
    manifest = prepare_folder(tree, tmp_path / "out", vae_folder, limit=2)
    assert {split: count["samples"] for split, count in manifest.counts.items()} == {
        "grounding": 2,
        "train": 2,
        "val": 2,
    }
    assert ("beyond --limit 2", 6, 10) in manifest.funnel
    assert len(rejected(tmp_path / "out")) == 11
    with pytest.raises(UserError, match="another options"):
        prepare_folder(tree, tmp_path / "out", vae_folder)
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


def test_shards_of_a_cohort_are_sized_by_it_alone():
    assert [shard_size(n) for n in (3, 165, 640, 4096, 200_000)] == [16, 16, 40, 256, 256]


def test_manifests_of_before_are_read(whole, tmp_path):
    values = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))
    del values["funnel"]
    for shard in values["shards"]:
        del shard["unreadable"], shard["boxes"]
    (tmp_path / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    manifest = Manifest.read(tmp_path)
    assert manifest.funnel == ()
    assert manifest.shards[0].unreadable == {}
