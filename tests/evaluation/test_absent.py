"""Absent findings: a model whose maps follow words, one that is blind to them, and scores by the size of the lesion."""

from pathlib import Path

import numpy as np
import pytest

from meddiff.common.errors import UserError
from meddiff.evaluation.absent import Absent, AbsentOptions, absent_result
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.ranks import Ranks
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model, run_part

OPTIONS = AbsentOptions(samples=8, timesteps=2)


@pytest.fixture(scope="module")
def split(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "grounding")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_attentive_model(8, vae=str(vae_folder))


def test_askings_are_scored_once_and_alike_in_any_batch(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    measurement = Absent(OPTIONS)
    with CountedPasses(model) as counted:
        found = run_part(measurement, model, split, tmp_path)
    assert counted.samples == measurement.cost(model, split)
    rows = read_table(tmp_path / "absent.csv")
    assert 5 <= found["n"] <= 8
    assert len(rows) == found["n"] + found["n_absent"]
    labels = {key: set(split.metadata(i)["labels"]) for i, key in enumerate(split.keys)}
    assert all((row["class"] in labels[row["key"]]) == (float(row["present"]) == 1) for row in rows)
    assert {row["size"] for row in rows if float(row["present"])} <= {"small", "medium", "large"}
    with CountedPasses(model) as counted:
        again = run_part(measurement, model, split, tmp_path)
    assert counted.samples == 0
    assert again == found
    other = Absent(AbsentOptions(samples=8, timesteps=2, batch_size=3)).run(model, split, None, Ranks()).figures
    assert other == pytest.approx(found, rel=1e-3, abs=1e-3)
    with pytest.raises(UserError, match="other settings"):
        run_part(Absent(AbsentOptions(samples=8, timesteps=2, seed=1)), model, split, tmp_path)


def rows_of(present_score: float, noise: float, focus: float) -> list[Row]:
    """Askings of two classes: what a map says of present and of absent findings."""
    random = np.random.default_rng(0)
    found: list[Row] = []
    for i in range(400):
        there, name = i % 2 == 0, ("Edema", "Pneumonia")[i // 2 % 2]
        area = float(random.uniform(0.001, 0.3)) if there else None
        row: dict[str, str | float | None] = {"key": f"k{i}", "class": name, "phrase": "p", "present": float(there)}
        value = float(random.normal() * noise + (present_score if there else 0.0))
        row |= {"top": value, "max": value, "usual_cnr": focus if there else 0.0, "area": area}
        found.append(row | {"cnr": None if area is None else area * 10, "auroc": 0.5, "top1": 1.0})
    return found


def test_a_map_blind_to_words_has_a_half_and_one_that_follows_them_has_all() -> None:
    blind, seeing = absent_result(rows_of(0, 1, 0), 0).figures, absent_result(rows_of(9, 1, 2), 0).figures
    assert blind["absent_auroc"] == pytest.approx(0.5, abs=0.06)
    assert blind["no_target_accuracy"] == pytest.approx(0.05, abs=0.05)
    assert blind["false_focus"] == pytest.approx(0)
    assert seeing["absent_auroc"] == pytest.approx(1, abs=1e-3)
    assert seeing["absent_auroc_shuffled"] == pytest.approx(0.5, abs=0.06), "the control knows no presence"
    assert seeing["no_target_accuracy"] > 0.95
    assert seeing["false_focus"] == pytest.approx(-2)
    assert seeing["size_spearman"] == pytest.approx(1)
    assert seeing["cnr/small"] < 0.2 < seeing["cnr/medium"] < 0.8 < seeing["cnr/large"]
    assert seeing["n/small"] + seeing["n/medium"] + seeing["n/large"] == 200
    constant = absent_result([{**row, "top": 1.0, "max": 1.0} for row in rows_of(9, 1, 2)], 0).figures
    assert constant["absent_auroc"] == pytest.approx(0.5), "ties count one half"
