"""Confounders: wherever the body lies, their overlay is in the picture."""

import pytest

from meddiff.phantoms.confounders import overlay
from meddiff.phantoms.options import CONFOUNDERS
from meddiff.phantoms.sampling import sample_scene


@pytest.mark.parametrize("name", CONFOUNDERS)
def test_every_confounder_is_in_the_picture(name: str) -> None:
    for k in range(150):
        scene = sample_scene(("test", "framing", k), ())
        assert overlay(name, scene.anatomy, scene.address, 128).mask.mean() > 0.002, k
