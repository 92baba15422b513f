"""Prepared again into the same folder: what changed since is made anew, and a call that failed is in nobody's way."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.phantom import PhantomLatentsDataModule
from meddiff.common.errors import UserError
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_cohort import prepare_reading, read_cohort
from meddiff.shards.manifest import Manifest
from tests.builders.command import HERE as COMMAND
from tests.builders.command import call
from tests.builders.files import listing
from tests.builders.folder_tree import make_folder
from tests.builders.prepared_folder import HERE, prepare_folder
from tests.builders.tiny import make_shards, make_vae


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A cohort that a test may change."""
    return make_folder(tmp_path / "tree")


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(out.glob("*.tar"))}


def changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name in after if before.get(name) != after[name]]


def test_a_text_that_was_mended_gets_into_its_shard(own: Path, vae_folder: Path, tmp_path: Path) -> None:
    prepare_folder(own, tmp_path / "out", vae_folder)
    before = stamps(tmp_path / "out")
    prepare_folder(own, tmp_path / "out", vae_folder)
    assert stamps(tmp_path / "out") == before, "nothing is made twice"
    table = own / "meta.csv"
    table.write_text(table.read_text().replace("text number 4", "text number 4 mended"))
    prepare_folder(own, tmp_path / "out", vae_folder)
    assert changed(before, stamps(tmp_path / "out")) == ["train-00001.tar"]
    prepare_folder(own, tmp_path / "fresh", vae_folder)
    assert listing(tmp_path / "out") == listing(tmp_path / "fresh")


def test_a_box_that_was_moved_gets_into_its_shard(own: Path, vae_folder: Path, tmp_path: Path) -> None:
    prepare_folder(own, tmp_path / "out", vae_folder)
    table = own / "meta.csv"
    table.write_text(table.read_text().replace('""y"": 20', '""y"": 24'))
    prepare_folder(own, tmp_path / "out", vae_folder)
    prepare_folder(own, tmp_path / "fresh", vae_folder)
    assert listing(tmp_path / "out") == listing(tmp_path / "fresh")


def test_an_image_that_was_replaced_by_one_as_large(own: Path, vae_folder: Path, tmp_path: Path) -> None:
    image = own / "images" / "a005.png"
    pixels = np.asarray(Image.open(image))
    Image.fromarray(pixels).save(image, compress_level=0)  # so that its size says nothing of its pixels
    prepare_folder(own, tmp_path / "out", vae_folder)
    before, size = stamps(tmp_path / "out"), image.stat().st_size
    Image.fromarray(255 - pixels).save(image, compress_level=0)
    assert image.stat().st_size == size
    later = max(before.values()) + 10**9  # however coarse the clock of the file system
    os.utime(image, ns=(later, later))
    prepare_folder(own, tmp_path / "out", vae_folder)
    assert changed(before, stamps(tmp_path / "out")) == ["train-00001.tar"]
    prepare_folder(own, tmp_path / "fresh", vae_folder)
    assert listing(tmp_path / "out") == listing(tmp_path / "fresh")


def test_a_call_that_failed_before_its_first_shard(
    own: Path, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At another resolution than was meant; the corrected call goes through."""
    reading = read_cohort("folder", own)
    with monkeypatch.context() as patch:
        patch.setattr("meddiff.preparation.record_images.RecordImages.__call__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_reading(reading, tmp_path / "out", str(vae_folder), 128, HERE, samples_per_shard=3)
    prepare_folder(own, tmp_path / "out", vae_folder)
    prepare_folder(own, tmp_path / "fresh", vae_folder)
    assert listing(tmp_path / "out") == listing(tmp_path / "fresh")


def test_who_may_have_a_cohort_can_be_said_later(own: Path, vae_folder: Path, tmp_path: Path) -> None:
    prepare_folder(own, tmp_path / "out", vae_folder)
    before = stamps(tmp_path / "out")
    assert Manifest.read(tmp_path / "out").access == "credentialed"
    reading = read_cohort("folder", own)
    prepare_reading(reading, tmp_path / "out", str(vae_folder), 64, HERE, samples_per_shard=3, access="public")
    assert Manifest.read(tmp_path / "out").access == "public"
    assert stamps(tmp_path / "out") == before


def test_shards_of_before_say_nothing_and_are_kept(own: Path, vae_folder: Path, tmp_path: Path) -> None:
    prepare_folder(own, tmp_path / "out", vae_folder)
    file = tmp_path / "out" / "manifest.json"
    content = json.loads(file.read_text())
    del content["access"]
    for shard in content["shards"]:
        del shard["made"]
    file.write_text(json.dumps(content))
    before = stamps(tmp_path / "out")
    prepare_folder(own, tmp_path / "out", vae_folder)
    assert stamps(tmp_path / "out") == before


def test_phantoms_of_an_autoencoder_that_was_trained_again(tmp_path: Path) -> None:
    """At the same path: the folder of the shards has the same name."""
    options, vae = PhantomOptions(n=8, resolution=64, val=2, grounding=2, fidelity=2), make_vae(tmp_path / "vae", 0)
    make_shards(tmp_path / "shards", vae, n=8, val=2, grounding=2, fidelity=2)
    module = PhantomLatentsDataModule(options, str(vae), str(tmp_path / "shards"))
    module.prepare_data()
    shutil.rmtree(vae)
    make_vae(vae, 1)
    with pytest.raises(UserError, match="encoded with another autoencoder"):
        module.prepare_data()
    shutil.rmtree(vae)  # gone: whole shards are still good
    module.prepare_data()


def test_the_access_of_a_folder_is_what_its_user_says(
    own: Path, vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--root", str(own), "--vae", str(vae_folder), *COMMAND)
    for given, access in (((), "credentialed"), (("--access", "public"), "public")):
        assert call(capsys, "prepare", "folder", "--out", str(tmp_path / "out"), *common, *given)[0] == 0
        assert Manifest.read(tmp_path / "out").access == access
    code, _, err = call(capsys, "prepare", "folder", "--out", str(tmp_path / "out"), *common, "--access", "secret")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = call(capsys, "prepare", "nih", "--out", str(tmp_path / "out"), *common, "--access", "public")
    assert code == 2
    assert "access" in err
