"""A model with prototypes and without text on two real processes (gloo): the step is that of one."""

from pathlib import Path

import pytest
import torch

from tests.builders.patronus import PLAIN_UNET, PROTOTYPES
from tests.builders.rank_program import run_on_ranks, seen
from tests.builders.tiny import make_shards

pytestmark = pytest.mark.slow
TOLD = {"prototypes": {"unet": PLAIN_UNET, "prototypes": PROTOTYPES}, "strategy": "ddp", "batch": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    place = tmp_path_factory.mktemp("ranks")
    cohort = make_shards(tmp_path_factory.mktemp("cohort") / "shards", vae_folder, n=40, val=4, grounding=4, fidelity=4)
    run_on_ranks(2, place, cohort, vae_folder, {"name": "two", "steps": 3, **TOLD})
    run_on_ranks(1, place, cohort, vae_folder, {"name": "one", "steps": 3, **TOLD})
    return place


def test_samples_losses_and_the_gradient_are_those_of_one_process(folder: Path) -> None:
    (one,), two = [seen(folder, "one")], [seen(folder, "two", rank) for rank in range(2)]
    for step, keys in enumerate(one["keys"]):
        assert sorted([*two[0]["keys"][step], *two[1]["keys"][step]]) == sorted(keys)  # type: ignore[misc]
    means = [(a + b) / 2 for a, b in zip(two[0]["losses"], two[1]["losses"], strict=True)]  # type: ignore[operator]
    assert means == pytest.approx(one["losses"], rel=1e-4)
    assert abs(two[0]["losses"][0] - two[1]["losses"][0]) > 1e-4, "the control: ranks see other images"  # type: ignore[operator]
    many, alone = (torch.load(folder / name / "gradients.pt", weights_only=True) for name in ("two", "one"))
    assert many.keys() == alone.keys()
    assert any("prototypes" in name for name in alone)
    largest = max(float(value.abs().max()) for value in alone.values())
    for name, value in alone.items():
        assert float((many[name] - value).abs().max()) <= 1e-5 * largest, name


def test_a_checkpoint_is_the_same(folder: Path) -> None:
    found = [
        torch.load(folder / name / "step-00000002.ckpt", weights_only=True)["state_dict"] for name in ("two", "one")
    ]
    assert found[0].keys() == found[1].keys()
    for name, value in found[1].items():
        assert torch.allclose(found[0][name].float(), value.float(), rtol=1e-3, atol=2e-5), name
