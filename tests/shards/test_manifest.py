"""The manifest: what it refuses, and that each refusal says what to do."""

import json

import pytest

from meddiff.common.errors import UserError
from meddiff.shards.manifest import Manifest
from tests.builders.shard_samples import make_header, write_folder


def test_missing_names_the_command(tmp_path):
    with pytest.raises(UserError) as error:
        Manifest.read(tmp_path / "none")
    assert str(error.value) == (
        f"no latent shards at {tmp_path}/none (manifest.json is missing): "
        f"write them with `lightning prepare COHORT --out {tmp_path}/none`"
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values.update(schema_version=3), "schema version 3, this program reads 1 and 2"),
        (lambda values: values.pop("vae"), "damaged"),
        (lambda values: values["vae"].pop("sha256"), "vae lacks sha256"),
        (lambda values: values.update(latent="median"), "latent is 'median'"),
        (lambda values: values.update(latent_shape=[4, 4]), "damaged"),
    ],
)
def test_damage_is_named(tmp_path, change, match):
    write_folder(tmp_path, {"train": 2})
    path = tmp_path / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match=match):
        Manifest.read(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not JSON"):
        Manifest.read(tmp_path)


def test_check_names_both_values():
    manifest = make_header()
    manifest.check(vae_sha256="ab" * 32, latent_shape=(4, 4, 4), resolution=32)
    manifest.check()
    with pytest.raises(UserError, match=r"VAE \(sha256\) abababababab but the model has cdcdcdcdcdcd: prepare"):
        manifest.check(vae_sha256="cd" * 32)
    with pytest.raises(UserError, match=r"latent shape \(4, 4, 4\) but the model has \(4, 64, 64\)"):
        manifest.check(latent_shape=(4, 64, 64))
    with pytest.raises(UserError, match="resolution 32 but the model has 512"):
        manifest.check(resolution=512)


@pytest.mark.parametrize(
    ("cohort", "access"),
    [
        *[(name, "credentialed") for name in ("mimic-cxr", "ms-cxr", "vindr-cxr", "folder", "unheard-of")],
        *[(name, "public") for name in ("nih", "rsna", "open-i", "mscoco", "phantom")],
    ],
)
def test_a_manifest_of_before_is_taken_by_its_cohort(tmp_path, cohort, access):
    write_folder(tmp_path, {"train": 1}, header=make_header(cohort=cohort))
    file = tmp_path / "manifest.json"
    assert json.loads(file.read_text())["access"] == access
    content = json.loads(file.read_text())
    del content["access"]
    file.write_text(json.dumps(content))
    assert Manifest.read(tmp_path).cohort_access == (cohort, access)
    file.write_text(json.dumps({**content, "access": "secret"}))
    with pytest.raises(UserError, match="access is 'secret'"):
        Manifest.read(tmp_path)
