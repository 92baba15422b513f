"""Preparing says when an autoencoder does not know the pictures: the one that ships has seen chests and no shapes."""

from pathlib import Path

import pytest

from meddiff.cli.main import dispatch
from meddiff.preparation.wide_posteriors import wide_posteriors
from meddiff.shards.manifest import Manifest


@pytest.mark.parametrize("domain", ["chest", "source"])
def test_only_pictures_that_it_has_not_learnt_are_told(
    domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "s"), "--vae", "assets/phantom_vae", "--n", "40", "--domain", domain]
    assert dispatch(["prepare", "phantom", *arguments, "--processes", "1"]) == 0
    found, looked = wide_posteriors(tmp_path / "s", Manifest.read(tmp_path / "s"))
    assert looked > 20
    assert ("--data.mean_only true" in capsys.readouterr().out) == (found > 0) == (domain == "source")
    assert wide_posteriors(tmp_path / "s", Manifest.read(tmp_path / "s"), looked=5)[1] == 5
