"""``lightning prepare phantom``: the same bytes whatever the number of processes, and readable by anybody's tools."""

import json
from pathlib import Path

import numpy as np
import pytest
import webdataset

from meddiff.cli.main import dispatch
from meddiff.models.backbones import load_vae
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.preparation.encode import encode_images
from meddiff.shards.manifest import Manifest
from tests.builders.tiny import make_shards


def prepare(out: Path, vae: Path, *more: str) -> dict[str, bytes]:
    arguments = ["--out", str(out), "--vae", str(vae), "--n", "40", "--resolution", "64", "--val", "4", *more]
    assert dispatch(["prepare", "phantom", *arguments]) == 0
    return tars(out)


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, vae_folder):
    out = tmp_path_factory.mktemp("prepared") / "two"
    return out, prepare(out, vae_folder, "--processes", "2")


def test_same_bytes_for_one_and_two_processes_and_another_seed_differs(prepared, tmp_path, vae_folder):
    _, two = prepared  # a pool's workers have one thread each, whatever the machine has; so has this process
    cohort = {"n": 40, "resolution": 64, "per_shard": 256, "val": 4}
    one = tars(make_shards(tmp_path / "one", vae_folder, **cohort))
    assert one == two
    other = tars(make_shards(tmp_path / "other", vae_folder, seed=1, **cohort))
    assert other.keys() == one.keys()
    assert all(other[name] != one[name] for name in one)


def test_contents(prepared, vae_folder):
    out, _ = prepared
    manifest = Manifest.read(out)
    assert manifest.latent == "moments"
    assert manifest.latent_shape == (4, 8, 8)
    assert sum(split["samples"] for split in manifest.counts.values()) == 40
    assert manifest.counts["val"]["samples"] == 4
    cohort = PhantomCohort(PhantomOptions(n=40, resolution=64, val=4))
    by_key = {sample.key: sample for sample in (cohort[i] for i in range(40))}
    vae = load_vae(str(vae_folder))
    urls = sorted(str(path) for path in out.glob("grounding-*.tar"))
    found = 0
    for item in webdataset.WebDataset(urls, shardshuffle=False).decode():
        sample = by_key[item["__key__"]]
        found += 1
        moments = encode_images(vae, [sample.image])[0]
        np.testing.assert_allclose(item["latent.npy"], moments, atol=2e-3, rtol=2e-3)
        assert item["json"]["impression"] == sample.impression
        assert item["json"]["labels"] == sample.labels
        assert len(item["json"]["boxes"]) == len(sample.boxes)
        masks = {name.split(".")[1] for name in item if name.startswith("mask.")}
        assert len(masks) == len(sample.masks)
    assert found == manifest.counts["grounding"]["samples"]


def test_continuing_with_other_options_is_refused(prepared, vae_folder):
    from meddiff.common.errors import UserError

    out, _ = prepared
    with pytest.raises(UserError, match="another options"):
        prepare(out, vae_folder, "--seed", "9")


def test_manifest_records_command_and_vae(prepared, vae_folder):
    out, _ = prepared
    content = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert content["command"].startswith("lightning prepare phantom")
    assert content["options"]["seed"] == 0
    assert content["vae"]["class"] == "AutoencoderKL"
    assert len(content["vae"]["sha256"]) == 64
