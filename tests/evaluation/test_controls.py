"""The controls of grounding on a few phantoms: every row is there, and asks what it says it asks."""

from pathlib import Path

import pytest

from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.errors import UserError
from meddiff.evaluation.controls import Controls, ControlsOptions, Others, shuffled
from meddiff.evaluation.grounding import Grounding, GroundingOptions
from meddiff.evaluation.measurement import Result
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import grounding_samples
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_model
from tests.builders.tiny import make_shards

TIMESTEPS = 2
ROWS = ["trained", "prior", "centre", "random", "shuffled_captions", "absent_finding", "base", "untrained"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> Path:
    return make_shards(tmp_path_factory.mktemp("cohort") / "phantom", vae_folder, n=40, val=2, grounding=14, fidelity=2)


@pytest.fixture(scope="module")
def split(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "grounding")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    return make_model(vae_folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, shards: Path, model: LatentDiffusion, vae_folder: Path) -> Others:
    """Small cohorts of twins and of several findings; the model itself as its own base."""
    folder = tmp_path_factory.mktemp("controls")

    def cohort(name: str, n: int, **options: float) -> LatentShardsDataset:
        options |= {"grounding": n, "val": 0, "fidelity": 0, "normal": 0.0}
        return LatentShardsDataset(make_shards(folder / name, vae_folder, n, **options), "grounding")

    return Others(
        train=LatentShardsDataset(shards, "train"),
        base=model,
        untrained=make_model(vae_folder, seed=1),
        mirrored=cohort("mirrored", 16, seed=3, mirrored_pairs=True, multiple=0.2),
        crowded=cohort("crowded", 12, seed=4, multiple=1.0),
    )


@pytest.fixture(scope="module")
def result(split: LatentShardsDataset, model: LatentDiffusion, others: Others) -> Result:
    return Controls(ControlsOptions(timesteps=TIMESTEPS), others).run(model, split, None, Ranks())


def figures(result: Result, control: str) -> dict[str, float]:
    (row,) = [row for row in result.tables["controls"].rows if row["control"] == control]
    return {name: float(value) for name, value in row.items() if isinstance(value, float)}


def test_every_row_is_there(result: Result, others: Others) -> None:
    table = [row["control"] for row in result.tables["controls"].rows]
    assert table == [*ROWS, "mirrored_own", "mirrored_twin"]
    assert list(result.controls) == ["gain", *table[1:]]
    gains = [row["control"] for row in result.tables["gain"].rows]
    assert gains == ["least", "absent", "other_finding", "twin", "other_patient", "mirrored_box"]
    assert all(float(row["n"] or 0) > 0 for row in result.tables["controls"].rows)
    compared = result.tables["own_first"].rows
    assert [row["network"] for row in compared] == ["trained", "base", "untrained"]
    for row in compared:
        assert float(row["pairs"] or 0) > 10
        assert float(row["twins"] or 0) > 3
        assert 0 <= float(row["low"] or 0) <= float(row["first"] or 0) <= float(row["high"] or 0) <= 1
    assert [row["word"] for row in result.tables["words_on_findings"].rows] == list(QUERY_WORDS)


def test_the_trained_row_is_groundings_own(result: Result, split: LatentShardsDataset, model: LatentDiffusion) -> None:
    found = Grounding(GroundingOptions(timesteps=TIMESTEPS)).run(model, split, None, Ranks()).figures
    assert figures(result, "trained") == pytest.approx(found, rel=1e-6)
    assert {name: result.figures[name] for name in found} == pytest.approx(found, rel=1e-6)
    # the base is the same network here, the untrained one another
    assert figures(result, "base") == pytest.approx(figures(result, "trained"), rel=1e-6)
    assert figures(result, "untrained")["cnr"] != pytest.approx(found["cnr"], rel=1e-3)


def test_other_phrases_are_other_figures(result: Result) -> None:
    trained = figures(result, "trained")
    for control in ("shuffled_captions", "absent_finding"):
        assert figures(result, control)["cnr"] != pytest.approx(trained["cnr"], rel=1e-4), control


def test_shuffled_phrases_are_another_images_about_the_same_class(split: LatentShardsDataset) -> None:
    samples = grounding_samples(split, list(QUERY_WORDS))[0]
    phrases = {(one.label, one.phrase) for one in samples}
    moved = shuffled(samples)
    for before, after in zip(samples, moved, strict=True):
        assert (after.key, after.label, after.boxes.tolist()) == (before.key, before.label, before.boxes.tolist())
        assert (after.label, after.phrase) in phrases
        elsewhere = {one.phrase for one in samples if one.label == before.label and one.key != before.key}
        assert after.phrase in elsewhere or not elsewhere
    assert sum(a.phrase != b.phrase for a, b in zip(samples, moved, strict=True)) > len(samples) / 2
    assert [one.phrase for one in shuffled(samples)] == [one.phrase for one in moved], "drawn by key, not by chance"


def test_it_costs_what_it_says_and_goes_without_what_is_not_there(
    split: LatentShardsDataset, model: LatentDiffusion
) -> None:
    bare = Controls(ControlsOptions(timesteps=TIMESTEPS, samples=6), Others())
    with CountedPasses(model) as counted:
        result = bare.run(model, split, None, Ranks())
    assert [row["control"] for row in result.tables["controls"].rows] == ROWS[:6]
    # an image that has every class of the six phrases has no absent finding to be asked for
    absent = float(next(row["n"] for row in result.tables["controls"].rows if row["control"] == "absent_finding") or 0)
    assert counted.samples == bare.cost(model, split) - (6 - absent) * TIMESTEPS


@pytest.mark.parametrize(("mirrored", "crowded"), [(3, 0), (-2, 0), (0, -1)])
def test_odd_numbers_of_phantoms_are_refused(mirrored: int, crowded: int) -> None:
    with pytest.raises(UserError, match="mirrored ones come in pairs"):
        ControlsOptions(mirrored=mirrored, crowded=crowded)
