"""Weights and configurations that are broken on the disk: one sentence that names the file."""

import shutil

import pytest

from meddiff.common.errors import UserError
from meddiff.models.weights.digests import fingerprint
from meddiff.models.weights.sources import read_config


def test_damaged_weights_and_configs_are_named(vae_folder, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(vae_folder, folder)
    whole = fingerprint(folder)
    (weights,) = folder.glob("*.safetensors")
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{weights.name} is damaged"):
        fingerprint(folder)
    weights.write_bytes(data)
    assert fingerprint(folder) == whole
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        read_config(folder)
