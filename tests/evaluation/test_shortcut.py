"""The shortcut index from pictures: a planted shortcut is found, a model without one has none; price, ledger, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meddiff.attribution.inversion import ddim_grid, edited
from meddiff.attribution.prototype_edits import inverted, watch
from meddiff.common.errors import UserError
from meddiff.evaluation.concept_scores import has_concept, quality, teach
from meddiff.evaluation.prototype_inputs import activations_of, inputs_of
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.shortcut import Shortcut, ShortcutOptions
from meddiff.evaluation.shortcut_edits import ByPrototypes
from meddiff.metrics.leak import Moves, leak_of, shortcut_index
from meddiff.models.sampling import SamplingOptions
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.drawn_parts import CountedPasses, make_attentive_model
from tests.builders.patronus import tiny_patronus
from tests.builders.planted_prototypes import FLOOR, WHOLE, planted_patronus, planted_pictures
from tests.builders.tiny import make_shards

GRID = ddim_grid(8)


# ---- planted ----------------------------------------------------------------------------------------------------------


def concepts(images: int, seed: int) -> torch.Tensor:
    """Which of six things each image has, independent of each other."""
    return (torch.rand(images, 6, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def planted_moves(along: dict[int, int]) -> Moves:
    """Prototype 0 raised and lowered by a model that draws others along with it; scored by probes on pixels."""
    plain = planted_patronus()
    having = concepts(400, 1)
    features = planted_pictures(plain, having, seed=1).flatten(1).double().numpy()
    own, other = (teach(features, having[:, column].numpy() > 0) for column in (0, 1))
    model = planted_patronus(along=along)
    start = inverted(model, planted_pictures(plain, concepts(40, 2), seed=2), GRID)
    seen = [
        watch(model, start.noise, edited(start.activations, {0: level}), GRID).clean.flatten(1).double().numpy()
        for level in (0.1, WHOLE)
    ]
    changes = [scorer.scores(seen[1]) - scorer.scores(seen[0]) for scorer in (own, other)]
    return Moves(list(range(40)), *changes)


@pytest.fixture(scope="module")
def alone() -> Moves:
    return planted_moves({})


def test_a_model_whose_edit_moves_the_finding_alone_has_no_index(alone: Moves) -> None:
    assert abs(leak_of(alone).value) < 0.05
    found = shortcut_index(alone, alone)
    assert found.value == pytest.approx(0.0)
    other = shortcut_index(planted_moves({0: 4}), alone)  # draws something along, but not the confounder
    assert abs(other.value) < 0.05


def test_a_planted_shortcut_is_found(alone: Moves) -> None:
    """The confounder comes wholly with the finding: the scores move alike by what an image lacked of it."""
    found = shortcut_index(planted_moves({0: 1}), alone)
    plain = planted_patronus()
    told = plain.activations(planted_pictures(plain, concepts(40, 2), seed=2))[:, 1].detach()
    lacking = 1.0 - float(((told - FLOOR) / (WHOLE - FLOOR)).clamp(0.0, 1.0).mean())
    assert found.value == pytest.approx(lacking, abs=0.1)
    assert found.low > 0.2


def test_a_scorer_that_mixes_the_two_up_is_known() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.uniform(size=(2, 2000)) < 0.5
    honest = quality(own + rng.normal(0, 0.3, 2000), other + rng.normal(0, 0.3, 2000), own, other)
    assert abs(honest.leak) < 0.05
    assert honest.own > 0.95
    assert abs(honest.correlation) < 0.1
    mixed = quality(own + rng.normal(0, 0.3, 2000), other + 0.5 * own + rng.normal(0, 0.3, 2000), own, other)
    assert mixed.leak == pytest.approx(0.5, abs=0.08)
    blind = quality(rng.normal(0, 1, 2000), other + 0.0, own, other)
    assert blind.own == pytest.approx(0.5, abs=0.05)


def test_concepts_are_findings_confounders_and_views() -> None:
    sample = {"labels": ["Edema"], "view": "AP", "attributes": {"confounders": ["tube"]}}
    assert [has_concept(sample, name) for name in ("edema", "TUBE", "AP", "PA", "text")] == [
        True,
        True,
        True,
        False,
        False,
    ]  # type: ignore[arg-type]


# ---- the measurement --------------------------------------------------------------------------------------------------

SMALL = ShortcutOptions("Cardiomegaly", "pacemaker", samples=12, steps=2, batch_size=5)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    place = tmp_path_factory.mktemp("shortcut") / "s"
    options = {"val": 2, "grounding": 0, "fidelity": 130, "normal": 0.0, "multiple": 1.0}
    options["confounders"] = ("pacemaker:cardiomegaly:0.9",)
    return LatentShardsDataset(make_shards(place, vae_folder, n=132, **options), "fidelity")


def test_the_price_is_paid_once_and_the_same_model_has_no_index(
    split: LatentShardsDataset, vae_folder: Path, tmp_path: Path
) -> None:
    model, twin = (tiny_patronus(vae=str(vae_folder)) for _ in range(2))
    measured = Shortcut(SMALL, twin)
    with CountedPasses(model) as one, CountedPasses(twin) as other:
        found = measured.run(model, split, tmp_path, Ranks())
    assert one.samples + other.samples == measured.cost(model, split)
    with CountedPasses(model) as counted:
        again = Shortcut(SMALL, twin).run(model, split, tmp_path, Ranks())
    assert counted.samples == 0
    assert again.tables["shortcut"].rows == found.tables["shortcut"].rows
    rows = {(row["of"], row["figure"]): row for row in found.tables["shortcut"].rows}
    assert ("index", "index") in rows
    assert rows["scorers", "own"]["value"] is not None
    assert rows["biased", "moved"]["value"] == rows["balanced", "moved"]["value"]
    assert len(found.tables["shortcut_images"].rows) == 24
    assert len(str(rows["biased", "leak"]["edited"]).split()) == 4  # two prototypes, each with its AUROC


def test_all_prototypes_are_moved_by_what_the_finding_changes_on_average(
    split: LatentShardsDataset, vae_folder: Path, tmp_path: Path
) -> None:
    model = tiny_patronus(vae=str(vae_folder))
    measured = Shortcut(replace(SMALL, edit="means"))
    taught, _ = measured.halves(split)
    way = ByPrototypes(model, split, taught, ("Cardiomegaly", "pacemaker"), 2, None)
    values = activations_of(model.prototypes, inputs_of(split), taught)
    has = np.array([has_concept(split.metadata(index), "Cardiomegaly") for index in taught])
    np.testing.assert_allclose(way.difference, values[has].mean(0) - values[~has].mean(0), rtol=1e-6)
    with CountedPasses(model) as counted:
        found = measured.run(model, split, tmp_path, Ranks())
    assert counted.samples == measured.cost(model, split)
    rows = {(row["of"], row["figure"]): row for row in found.tables["shortcut"].rows}
    assert rows["biased", "moved"]["edited"] == "difference of means"
    assert rows["biased", "moved"]["value"] != Shortcut(SMALL).run(model, split, None, Ranks()).figures["moved_biased"]
    far = Shortcut(replace(SMALL, edit="means", scale=30)).run(model, split, None, Ranks())
    ends = {(row["of"], row["figure"]): row for row in far.tables["shortcut"].rows}
    assert ends["biased", "odd"]["edited"] == "difference of means, 30 times"
    assert float(ends["biased", "odd"]["value"] or 0) > 2 * float(rows["biased", "odd"]["value"] or 0)
    with pytest.raises(UserError, match="other settings"):
        Shortcut(SMALL).run(model, split, tmp_path, Ranks())


def test_words_are_asked_of_a_model_that_has_no_prototypes(split: LatentShardsDataset, vae_folder: Path) -> None:
    model = make_attentive_model(8, vae=str(vae_folder))
    measured = Shortcut(replace(SMALL, samples=4, sampling=SamplingOptions(steps=2, sampler="ddim")))
    with CountedPasses(model) as counted:
        found = measured.run(model, split, None, Ranks())
    assert counted.samples == measured.cost(model, split)
    rows = {(row["of"], row["figure"]): row for row in found.tables["shortcut"].rows}
    assert rows["biased", "leak"]["edited"] == "captions"
    assert ("index", "index") not in rows


def test_what_cannot_be_measured_is_refused_first(split: LatentShardsDataset, vae_folder: Path) -> None:
    with pytest.raises(UserError, match=r"give --shortcut\.finding and --shortcut\.confounder"):
        Shortcut(ShortcutOptions()).check(split)
    with pytest.raises(UserError, match=r"has 0 of .* images with 'marker': a probe needs at least 15"):
        Shortcut(replace(SMALL, confounder="marker")).check(split)
    with pytest.raises(UserError, match="are both"):
        Shortcut(replace(SMALL, confounder="cardiomegaly")).check(split)
    with pytest.raises(UserError, match=r"scale is -1\.0"):
        ShortcutOptions(scale=-1.0)
    with pytest.raises(UserError, match="features names one extractor"):
        ShortcutOptions(features={})
    with pytest.raises(UserError, match="reads no text"):
        Shortcut(replace(SMALL, by="words")).run(tiny_patronus(vae=str(vae_folder)), split, None, Ranks())
    Shortcut(ShortcutOptions(samples=3), coupled=("Cardiomegaly", "pacemaker")).check(split)
