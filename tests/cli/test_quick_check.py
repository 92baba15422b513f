"""The check before torch is imported asks the room of a class, and speaks only where that room has a quick check."""

import subprocess
import sys

import pytest

from meddiff.cli.arguments import expand
from meddiff.cli.quick_check import certain_problems, quick_check_of
from tests.builders.command import ROOT


@pytest.mark.parametrize("path", ["lightning_modules.LatentDiffusionModule", "datamodules.LatentShardsDataModule"])
def test_rooms_are_asked_without_torch(path: str) -> None:
    code = f"""
import sys
from meddiff.cli.arguments import expand
from meddiff.cli.quick_check import certain_problems, quick_check_of
print(quick_check_of({path!r})({{"unet": "nowhere", "shards": "nowhere"}}))
assert "torch" not in sys.modules
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "nowhere" in said


@pytest.mark.parametrize(
    "path", [None, "", "NoDot", "no.such.Class", "lightning_modules.AutoencoderModule", "torch.nn.Module"]
)
def test_every_other_class_is_left_to_the_full_check(path: str | None) -> None:
    assert quick_check_of(path) is None


def test_numbers_are_looked_at_beside_values_that_stand_for_others() -> None:
    """``${...}`` somewhere in a config hides no absurd number elsewhere in it."""
    given = expand(["-c", "configs/quickstart.yaml", "--trainer.max_steps=-7", "--seed_everything=-5"])
    assert certain_problems(given) == [
        "trainer.max_steps is -7; it must be a whole number and lie in [-1, 10,000,000,000].",
        "seed_everything is -5; it must be a whole number and lie in [0, 4,294,967,295].",
    ]
    assert certain_problems(expand(["-c", "configs/quickstart.yaml", "--seed_everything=5"])) == []
